"""What a policy can learn from a table of steps: one file for each objective.

An objective's file holds its settings, its loss and its sources. The file's name is the objective's name
(`training.objective`). `base` says what an objective is, `registry` finds one by name, `common` holds what several
losses share. To add an objective, add a file here, or call `register_objective` in a module of your own.

Papers are cited by section and equation. A number is given only where it was seen in print. Otherwise the equation is
named by the paper's own words and symbol, which a search in the paper finds.
"""

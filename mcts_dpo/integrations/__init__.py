"""This package inside the programs that people evaluate and serve with. Each module needs its own extra.

Nothing below knows of it: an integration turns a harness's requests into problems and budgets, and answers back.
"""

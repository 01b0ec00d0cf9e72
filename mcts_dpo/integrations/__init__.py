"""This package inside the programs that people evaluate and serve with. Each module needs its own extra.

An integration turns a harness's requests into problems and budgets, and solutions into its answers.
"""

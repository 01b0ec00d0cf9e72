"""The operators and closing brackets of the grammar: how they are written, and their names in the tree.

In: nothing. Out: tables.
"""

from __future__ import annotations

RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=",
    "\\neq": "!=",
    "\\in": "in", "\\approx": "~", "\\thickapprox": "~", "\\simeq": "~", "\\doteq": "~", "\\leqq": "<=", "\\geqq": ">=",
}  # fmt: skip
SETOPS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "setminus", "\\backslash": "setminus", "\\bigcup": "cup"}
TIMES = {"*", "\\cdot", "\\times", "\\ast"}
OVER = {"/", "\\div"}
CLOSING = {"\\rfloor", "\\rceil", "\\rvert", "\\rVert", "\\rangle", "\\right", "\\end", "\\\\"}
NO_OPERANDS = frozenset({"\\pm", "\\mp", *RELATIONS, *SETOPS, *TIMES, *OVER, *CLOSING})
"""A value never begins with one of these."""

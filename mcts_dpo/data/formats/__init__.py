"""The layouts of problem files, one file each: how a row becomes a `Problem`, and how a layout is recognised.

To add one, write a function from a `Row` to a `Problem` and call `register_format`.
"""

from mcts_dpo.data.formats.base import Reader, Row
from mcts_dpo.data.formats.registry import format_names, register_format

__all__ = ["Reader", "Row", "format_names", "register_format"]

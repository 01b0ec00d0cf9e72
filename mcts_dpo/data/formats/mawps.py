"""MAWPS: a question and a number as its answer (Koncel-Kedziorski et al. 2016)."""

from __future__ import annotations

from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.problem import Problem


def read(row: Row) -> Problem:
    """The problem of a row."""
    return row.problem(answer=("answer",), required=("question", "answer"))

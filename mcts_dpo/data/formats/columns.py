"""Plain columns: question, answer, solution, choices and id, or those that the setting `columns` names."""

from __future__ import annotations

from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.problem import Problem


def read(row: Row) -> Problem:
    """The problem of a row. Only the question must be there."""
    return row.problem(answer=("answer", "answerKey"), solution=("solution",), choices=("choices",))

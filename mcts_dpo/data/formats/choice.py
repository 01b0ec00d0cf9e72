"""Multiple choice: ARC, MMLU, CommonsenseQA and the like. The right answer becomes the letter of a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcts_dpo.data.choices import choice_columns, of_columns
from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.problem import Problem

_LISTS = ("choices", "options")
_ANSWERS = ("answerKey", "answer", "answer_idx", "answer_index", "correct", "label")


def detect(values: Mapping[str, Any]) -> bool:
    """Whether the first row has a question and choices, in one column or in one column each."""
    return "question" in values and bool(values.keys() & set(_LISTS) or choice_columns(values))


def read(row: Row) -> Problem:
    """The problem of a row. `data/choices.py` says in which forms choices and answers are read."""
    columns = choice_columns(row.values, least=2)
    if "choices" in row.columns or not columns or any(name in row.values for name in _LISTS):
        return row.problem(choices=_LISTS, answer=_ANSWERS, required=("question", "choices"))
    return row.problem(choices=of_columns([row.values[name] for name in columns], row.where), answer=_ANSWERS)

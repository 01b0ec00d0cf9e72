"""GSM8K: the answer column holds a solution, then "####" and the final answer (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.problem import Problem


def detect(values: Mapping[str, Any]) -> bool:
    """Whether the first row has a question, and an answer with "####"."""
    answer = values.get("answer")
    return "question" in values and isinstance(answer, str) and "####" in answer


def read(row: Row) -> Problem:
    """The problem of a row. The text before the last "####" is its solution."""
    problem = row.problem(answer=("answer",), required=("question", "answer"))
    if problem.choices or "####" not in (problem.answer or ""):
        return problem
    solution, _, answer = (problem.answer or "").rpartition("####")
    return replace(problem, answer=answer.strip(), solution=solution.strip())

r"""MATH: the final answer is in the solution's last box, \boxed{…} (Hendrycks et al. 2021, arXiv 2103.03874)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.problem import Problem
from verifiers import extract_answer, verify


def detect(values: Mapping[str, Any]) -> bool:
    """Whether the first row has the columns of MATH."""
    return "problem" in values and bool(values.keys() & {"solution", "answer"})


def read(row: Row) -> Problem:
    """The problem of a row. Without an answer column, the answer is the content of the solution's boxes."""
    problem = row.problem(
        question=("problem", "question"), answer=("answer",), solution=("solution",), id=("id", "unique_id")
    )
    if problem.choices or problem.answer is not None or problem.solution is None:
        return problem
    return replace(problem, answer=boxed_answer(problem.solution) or "")


_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+([^\s${}]+))")


def boxed_answer(solution: str) -> str | None:
    r"""The answer in the boxes, \boxed{…}, of a MATH solution.

    Several boxes with different values become one answer of several parts, "1, 2". Boxes before a word that takes them
    back ("no", "wait") do not count. None without a box, or if the last box never ends.
    """
    last = last_boxed(solution)
    boxes = list(_BOX.finditer(solution))
    if last is None or len(boxes) < 2:
        return last
    taken_back = [
        place
        for place, (one, two) in enumerate(pairwise(boxes), 1)
        if _RETRACTED.search(solution, one.end(), two.start())
    ]
    parts: list[str] = []
    for box in reversed(boxes[taken_back[-1] if taken_back else 0 :]):  # of two spellings the last counts
        content = _content(solution, box)
        if content and not any(verify(known, content) for known in parts):
            parts.insert(0, content)
    found = ", ".join((extract_answer(solution, "boxed") or last).split(" \\text{ or } "))
    return found if len(parts) > 1 and all(part in found for part in parts) else ", ".join(parts) or last


_RETRACTED = re.compile(r"\b(?:no|not|wait|wrong|actually|instead|oops|mistake|incorrect|correction|should be)\b", re.I)


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...}, braces balanced. None without one, or if it never ends."""
    boxes = list(_BOX.finditer(text))
    return _content(text, boxes[-1]) if boxes else None


def _content(text: str, box: re.Match[str]) -> str | None:
    if box.group(1) is not None:  # \boxed 5
        return box.group(1)
    start = end = box.end()
    depth = 1
    while depth and end < len(text):
        character = text[end]
        if character == "\\":
            end += 1  # \{ and \} are printed braces, not groups
        elif character in "{}":
            depth += 1 if character == "{" else -1
        end += 1
    return None if depth else text[start : end - 1].strip()

"""What a problem is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["question", "answer", "solution", "id", "choices"]
"""What a column of a data set can be to a problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    id:       unique in its set.
    question: the text, never empty.
    answer:   the reference answer as text: several parts as "part, part", a multiple choice as its letter. "" if the
              answer could not be found (a MATH solution without \\boxed). None if there is none or it is withheld.
    solution: a reference solution, or None.
    choices:  the choices of a multiple-choice question, in the order of the letters A, B, C, …; otherwise empty.
    source:   the data set, as the user named it.
    verifier: the name of the verifier that compares answers (`verifiers.get_verifier`). "" compares as mathematics, or
              as letters if there are choices.
    """

    id: str
    question: str
    answer: str | None = None
    solution: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    verifier: str = ""

    def without_answer(self) -> Problem:
        """The problem as a solving search sees it: no reference answer, no reference solution."""
        return replace(self, answer=None, solution=None)

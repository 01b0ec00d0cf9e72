"""What policies write under the default prompt and what has been misread of it: the cases of the end-to-end tests."""

from __future__ import annotations

from dataclasses import dataclass

from mcts_dpo.data import Problem
from tests.models.test_prompts import byte_level
from tests.reference.scripted import ScriptedEngine


@dataclass(frozen=True)
class Case:
    """lines: of a solution. answer: that it states. wrong: what it was taken for."""

    name: str
    lines: tuple[str, ...]
    answer: str
    wrong: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def question(self) -> str:
        return f"What about {self.name}?"

    def problem(self, *, reference: str | None = None) -> Problem:
        return Problem(self.name, self.question, self.answer if reference is None else reference)


WORK = "First, 3 + 4 = 7."
CASES = (
    Case("because", (WORK, "The answer is 12 because one side is 5."), "12", "5"),
    Case("since", (WORK, "The answer is 12 since 5 + 7 = 12 and 7 is odd."), "12", "7"),
    Case("which", (WORK, "The answer is 72, which is the sum of 70 and 2."), "72", "2"),
    Case("exactly", (WORK, "The answer is exactly 12."), "12", "1"),
    Case("brackets", (WORK, "The answer is 12 (twelve)."), "12", "2"),
    Case("bold", (WORK, "The answer is **12**, as shown in step 3."), "12", "3"),
    Case("heading", ("#### Step 1: add", WORK, "#### Step 2: conclude", "The answer is 7."), "7", "1"),
    Case("result", ("Since the result is odd we must go on.", WORK, "The answer is 7."), "7", "3"),
    Case("property", ("The answer must be an integer.", WORK, "The answer is 7."), "7", "3"),
    Case("question", ("Maybe the answer is 7?", "No, 2 + 3 = 5.", "The answer is 5."), "5", "7"),
    Case("asked", ("Is the answer 7?", "No, 2 + 3 = 5.", "The answer is 5."), "5", "7"),
    Case("if", ("If the answer is 7, then x is odd.", "But x = 4.", "The answer is 5."), "5", "7"),
    Case(
        "thought",
        ("<think>", "Perhaps \\boxed{7}.", "The answer is 7.", "Hmm, no.", "</think>", "The final answer is 5."),
        "5",
        "7",
    ),
    Case("box", ("The answer is an integer.", "So we get $\\boxed{12}$."), "12", "1"),
    Case("gsm8k", ("#### Step 1", WORK, "#### 7"), "7", "1"),
)


def engine(*cases: Case, more: tuple[str, ...] = ()) -> ScriptedEngine:
    """A policy that writes the cases' solutions; `more`: others, to each question."""
    return ScriptedEngine(byte_level(), {case.question: (case.text, *more) for case in cases})

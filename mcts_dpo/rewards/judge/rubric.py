"""What a judge reads: a rubric with the question and the solution so far in their places."""

from __future__ import annotations

import re
from typing import Literal

from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import question_text
from mcts_dpo.rewards.base import SolutionPath

Form = Literal["words", "grade"]

RUBRIC = """You check the solution of a problem.

Problem:
{question}

Solution so far:
{steps}

Its last step:
{step}

Is the solution right up to here? Check every calculation, and whether each step follows. It need not be complete.
{reply}"""

_REPLIES = {
    ("words", False): "Answer with one word: {good} or {bad}.",
    ("words", True): 'Think first. End with a line "Verdict: {good}" or "Verdict: {bad}".',
    ("grade", False): "Answer with one number, from 0 (surely wrong) to 10 (surely right).",
    ("grade", True): 'Think first. End with a line "Grade: N", with N from 0 (surely wrong) to 10 (surely right).',
}


def render(
    rubric: str, problem: Problem, path: SolutionPath, *, form: Form, words: tuple[str, str], thinks: bool
) -> str:
    """The rubric about one path. form, words, thinks: what {reply} asks for."""
    values = {
        "question": question_text(problem),
        "steps": path.text.strip("\n"),
        "step": path.steps[-1].strip("\n") if path.steps else "",
        "reply": _REPLIES[form, thinks].format(good=words[0], bad=words[1]),
    }
    return re.sub(r"\{(question|steps|step|reply)\}", lambda found: values[found[1]], rubric)

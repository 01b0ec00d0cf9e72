"""Decides whether a step of a solution states the answer, so that the solution ends there."""

from __future__ import annotations

from verifiers.read.statements import ALL
from verifiers.read.styles import KINDS, counted, seen


def states_answer(text: str, style: str = "math", *, before: str = "") -> bool:
    r"""Whether the step ``text`` states an answer with a mark of ``style``: ``\boxed``, ``####``, "the answer is".

    ``before``: the solution before this step; a thought that is open at its end continues in the step. Some styles also
    accept a number or letter without a mark; here only their marks count. Returns False for a question ("Is the answer
    7?"), a hedge ("maybe the answer is 7"), a heading ("#### Step 1: add"), a property ("the answer must be an
    integer"), an answer that the text takes back, and an answer in a thought.
    """
    found = counted(seen(text, before), KINDS.get(style, ALL))
    return found is not None and found.answer is not None and found.firm and found.ends

"""Whether a step of a solution states its answer, so that the solution ends there."""

from __future__ import annotations

from verifiers.read.statements import ALL
from verifiers.read.styles import KINDS, counted, seen


def states_answer(text: str, style: str = "math", *, before: str = "") -> bool:
    r"""Whether ``text``, one step, states an answer by a mark (``\boxed``, ``####``, "the answer is") in ``style``.

    ``before``: the solution before this step; a thought that is open there continues in the step. A style that also
    takes an unmarked number or letter counts its marks only. False for a question ("Is the answer 7?"), a hedge ("maybe
    the answer is 7"), a heading ("#### Step 1: add"), a property ("the answer must be an integer"), an answer that
    is taken back, and in a thought.
    """
    found = counted(seen(text, before), KINDS.get(style, ALL))
    return found is not None and found.answer is not None and found.firm and found.ends

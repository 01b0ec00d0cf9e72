"""Whether a step of a solution states its answer, so that the solution ends there."""

from __future__ import annotations

import re

from verifiers.read.legacy import extract_answer, is_prose

MARKED = ("boxed", "gsm8k", "answer_is")
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|guess|suppose|assume|could|might|may|must|should|would|cannot|whether|if"
    r"|since|because|not\s+sure)\b",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W\d_]")
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought)>", re.IGNORECASE)


def states_answer(text: str, style: str = "math", *, before: str = "") -> bool:
    r"""Whether ``text``, one step, states an answer by a mark (``\boxed``, ``####``, "the answer is") in ``style``.

    ``before``: the solution before this step; a thought that is open there goes on in the step. A style that also
    takes an unmarked number or letter counts its marks only. False for a question ("Is the answer 7?"), a hedge ("maybe
    the answer is 7"), a heading ("#### Step 1: add"), a property ("the answer must be an integer") and in a thought.
    """
    outside = _outside_thoughts(text, before)
    found = extract_answer(outside, style if style in MARKED else "math")
    if found is None or (is_prose(found) and not re.search(r"\d|\\", found)):
        return False
    if "boxed" in outside and extract_answer(outside, "boxed") == found:
        return True
    if style == "gsm8k" or "####" in outside:
        return not re.match(r"(?:step|part|case)\b", found, re.IGNORECASE) and bool(re.search(r"\d", found))
    line = next((one for one in reversed(outside.splitlines()) if _LETTERS.search(one)), "")
    return not (line.rstrip(' *"').endswith("?") or _HEDGED.search(line.split(found)[0]))


def _outside_thoughts(text: str, before: str) -> str:
    marks = [match.group(1) for match in _THOUGHT.finditer(before)]
    open_at = 0 if marks and not marks[-1] else None
    kept, at = [], 0
    for match in _THOUGHT.finditer(text):
        if not match.group(1) and open_at is None:
            kept.append(text[at : match.start()])
            open_at = match.start()
        elif match.group(1):
            kept = kept if open_at is not None else []
            open_at, at = None, match.end()
    return "".join(kept) if open_at is not None else "".join((*kept, text[at:]))

r"""A reference answer as text, whatever a data set holds it as; and the box that a MATH solution has it in."""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal
from itertools import pairwise
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown
from verifiers import extract_answer, verify

_PLAIN_DIGITS = 20
"""Up to so many digits before or after its point a number is written without an exponent."""


def answer_text(value: Any, where: str) -> str | None:
    """A cell as a reference answer: None for none (null, NaN, an empty list), text as it is without the space around
    it, numbers as their shortest decimal, a list of one as its item, of several as "part, part".

    Raises InputError, naming the place, for anything else: objects, bytes, infinity, lists of lists, lists with gaps.
    """
    if not isinstance(value, list | tuple):
        return scalar_text(value, where, "answer")
    if len(value) < 2:
        return answer_text(value[0], where) if value else None
    parts = [None if isinstance(item, list | tuple) else scalar_text(item, where, "answer") for item in value]
    if not all(parts):
        raise InputError(f"{where}: the answer is {shown(value)} (accepted: text, a number, or a list of them)")
    return ", ".join(part for part in parts if part)


def scalar_text(value: Any, where: str, what: str) -> str | None:
    """A cell that holds one text or number, as text; None for null and NaN.

    what: the cell's meaning, for the message. Raises InputError for lists, objects, bytes and infinity.
    """
    if value is None or _not_a_number(value):
        return None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int | datetime.date | datetime.time):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return decimal_text(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    kind = "bytes" if isinstance(value, bytes | bytearray) else shown(value)
    accepted = "text, a number, or a list of them" if what == "answer" else "text or a number"
    raise InputError(f"{where}: the {what} is {kind} (accepted: {accepted})")


def _not_a_number(value: Any) -> bool:
    """Whether a value is NaN, or the absent date that is unequal to itself, too."""
    return not isinstance(value, str | bytes | list | dict) and bool(value != value)


def decimal_text(value: float) -> str:
    """The shortest decimal that is this number: 0.1, 4 (not 4.0), 0.00001; with an exponent beyond 20 digits."""
    exact = Decimal(repr(value))
    if value == 0:
        return "0"
    if not -_PLAIN_DIGITS <= exact.adjusted() <= _PLAIN_DIGITS:
        return repr(value)
    text = format(exact, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+([^\s${}]+))")


def boxed_answer(solution: str) -> str | None:
    r"""The answer that a MATH solution has in its boxes, \boxed{…}: of several with different values one answer of
    several parts, "1, 2", without those that are taken back ("no", "wait"). None without a box, or where the last
    never ends.
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
    r"""What the last \boxed{...} (or \fbox{...}) holds, braces balanced; None if there is none or it never ends."""
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

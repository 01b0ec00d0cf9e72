"""A cell of a data set as the text of a reference answer, an id or a label."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown

_PLAIN_DIGITS = 20
"""A number with more digits than this before or after its point is written with an exponent."""


def answer_text(value: Any, where: str) -> str | None:
    """The text of a reference answer that a cell holds; None for null, NaN and an empty list.

    Text loses the space around it. A number becomes its shortest decimal, a list of one its item, a list of several
    "part, part". where: the place, for messages.

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
    """Whether a value is unequal to itself: NaN, or pandas' absent date."""
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

"""Finds the end of a quantity of several words: ``5 ft 3 in``, ``half past three``, ``the 5th of March``.

In: the text after a mark. Out: how many of its first characters form one quantity that a reader would otherwise cut.
The reader itself handles plain numbers with their units.
"""

from __future__ import annotations

import re

from verifiers.limits import TooLarge
from verifiers.quantities.exact import quantity
from verifiers.quantities.wording import ONES, TENS

_NUMBER_WORD = "|".join(sorted([*ONES, *TENS], key=len, reverse=True))
_WORDS = re.compile(
    rf"(?:(?:minus|negative)\s+)?(?:(?:an?|the)\s+)?(?:(?:{_NUMBER_WORD})(?![a-z]|\s+of\b)|half\b|quarter\b|dozen\b"
    r"|hundred\b|thousand\b|million\b|hour\b|minute\b|mile\b|point\b|\d{1,2}(?:st|nd|rd|th)\b|first\b)",
    re.IGNORECASE,
)
_DIGITS = re.compile(
    r"(?:\\?[$€£]\s?)?-?\d[\d.,/]*\s*(?:and\s+(?:an?|one|two|three|\d+/\d)\b|(?:to|in|out\s+of|is\s+to)\s+\d"
    r"|[A-Za-z'^][A-Za-z'.^\\]{0,10}\s*,?\s*(?:and\s+)?\d)",
)
_TOKEN = re.compile(r"\S+")
_GOES_ON = re.compile(
    r"\s*-?\s*(?:than|times|of|plus|minus|over|less|more|fewer|squared|cubed|factorial|divided|multiplied|by|to|percent"
    r"|point|mod|[-+/^=<>×÷!%]|\*(?!\*)|\d)",
    re.IGNORECASE,
)
MAX_SPAN = 100
MAX_TOKENS = 14


def quantity_span(text: str) -> int:
    """Returns how many characters at the start of ``text`` form a quantity of several words; 0 if there is none."""
    if not (_WORDS.match(text) or _DIGITS.match(text)):
        return 0
    ends = [match.end() for match in _TOKEN.finditer(text, 0, MAX_SPAN)][:MAX_TOKENS]
    for end in reversed(ends):
        piece = text[:end].rstrip('.,;:!?*_)”"')
        if " " in piece.strip() and _is_quantity(piece):
            return 0 if _GOES_ON.match(text, len(piece)) else len(piece)
    return 0


def _is_quantity(text: str) -> bool:
    try:
        return quantity(text) is not None
    except TooLarge:
        return False

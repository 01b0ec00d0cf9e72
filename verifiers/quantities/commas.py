"""Reads the commas and points of other countries: ``1,22``, ``1.234,56``, ``1.234.567``, ``1'234``, ``12,34,567``.

In: one answer as text. Out: the same text with a decimal point and without groups, if the text can be read that way.
The policy says which reading counts.
"""

from __future__ import annotations

import re

_SIGN = r"(?P<before>[+-]?\s*(?:(?:\\\$|[€£¥₹$])\s*)?)"
_AFTER = r"(?P<after>\s*[^\d\s,.'][^\d]*|)"
_DECIMAL = re.compile(rf"{_SIGN}(?P<whole>\d+),(?P<places>\d{{2,}}|\d(?=\s*[^\d\s,;]))(?P<after>\s*\D*)")
_POINTS = re.compile(rf"{_SIGN}(?P<whole>\d{{1,3}}(?:[. ]\d{{3}})+),(?P<places>\d{{1,2}}|\d{{4,}}){_AFTER}")
_ONLY_POINTS = re.compile(rf"{_SIGN}(?P<whole>\d{{1,3}}(?:\.\d{{3}}){{2,}}){_AFTER}")
_APOSTROPHES = re.compile(rf"{_SIGN}(?P<whole>\d{{1,3}}(?:'\d{{3}})+)(?:[.,](?P<places>\d+))?{_AFTER}")
_INDIAN = re.compile(rf"{_SIGN}(?P<whole>[1-9]\d?(?:,\d{{2}})+,\d{{3}})(?:\.(?P<places>\d+))?{_AFTER}")
_ANY_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?![\d.])")
_ANY_DECIMAL = re.compile(r"(?<=\d),(?=\d)")


def as_one_number(text: str) -> str | None:
    """Writes ``text`` as one number with a decimal point, if its commas, points or apostrophes allow that reading."""
    for pattern in (_POINTS, _ONLY_POINTS, _APOSTROPHES, _INDIAN):
        match = pattern.fullmatch(text)
        if match:
            whole = re.sub(r"\D", "", match.group("whole"))
            places = match.groupdict().get("places")
            return f"{match.group('before')}{whole}{f'.{places}' if places else ''}{match.group('after')}"
    match = _DECIMAL.fullmatch(text)
    if match is None or (len(match.group("places")) > 3 and len(match.group("whole")) > 2):
        return None
    return f"{match.group('before')}{match.group('whole')}.{match.group('places')}{match.group('after')}"


def with_points(text: str) -> str:
    """Rewrites ``text`` so that a comma between digits is a decimal mark and points in threes are groups."""
    return _ANY_DECIMAL.sub(".", _ANY_GROUPED.sub(lambda match: match.group().replace(".", ""), text))

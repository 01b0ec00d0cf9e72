"""Reads quantities in several units: ``2 hours 30 minutes``, ``5'3"``, ``1 dollar and 50 cents``, ``30° 15'``.

In: one answer as text, without its formatting. Out: one :class:`Quantity` in the first unit, or None. All parts must
have one dimension. Each part must have a smaller unit than the part before it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from verifiers.quantities.unit_table import AMBIGUOUS
from verifiers.quantities.units import DEGREE, Unit, is_known_unit, parse_unit
from verifiers.quantities.written import Number, Quantity, number_at, tight

_PART = re.compile(
    r"(?:(?<=\D)|^)\s*(?P<number>\d{1,12}(?:,\d{3})*(?:\.\d{1,12})?(?:\s+\d{1,4}/\d{1,4})?|\d{1,4}/\d{1,4})\s*(?P<unit>[^\d,;=<>+]+?)"
    r"(?P<joint>\s*(?:,\s*and\b|,|\band\b|&|\by\b|\bet\b|\bund\b)?\s*)(?=\d|\Z)",
    re.IGNORECASE,
)
_HALF = re.compile(
    r"(?P<number>\d{1,9}|an?)\s+(?P<unit>[a-z]+)\s+and\s+(?P<part>an?\s+half|an?\s+quarter|three\s+quarters)",
    re.IGNORECASE,
)
_ONE = re.compile(r"an?\s+([a-z]{3,12})", re.IGNORECASE)
_HALVES = {"half": "1/2", "quarter": "1/4", "quarters": "3/4"}
_MONEY = re.compile(r"(?:\\\$)\s*(\d{1,9})(?=\s+and\s+\d{1,2}\s+cents?\b)")
_BARE_INCHES = re.compile(r"^(-?\d{1,3}'\s*\d{1,2})$")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
#: joined by a comma these are one quantity; of other units they are a list
_COMMA_DIMS = frozenset([(("time", 1),), (("mass", 1),), (("dollar", 1),), (("month", 1),)])
_ARC = {"'": Fraction(1, 60), '"': Fraction(1, 3600), "''": Fraction(1, 3600)}
MAX_COMPOUND = 120
MAX_PARTS = 4


def compound(text: str) -> Quantity | None:
    """Returns the quantity that ``text`` states in several units, or None if the text does not have that form."""
    if len(text) > MAX_COMPOUND:
        return None
    text = _MONEY.sub(r"\1 dollars", text)
    text = _BARE_INCHES.sub(r'\1"', text)
    negative = text.startswith("-")
    parts = _parts(_DEGREES.sub(" degrees ", text.lstrip("+-").strip()))
    if parts is None:
        return None
    first = parts[0][1]
    total = sum((Fraction(value) * unit.factor for value, unit in parts), Fraction(0)) * (-1 if negative else 1)
    in_first, in_last = total / first.factor, total / parts[-1][1].factor
    return Quantity(tight(in_first), str(in_first), None, 0, first, parts=(tight(in_last),))


def with_half(text: str) -> Quantity | None:
    """Reads ``an hour and a half`` or ``2 hours and three quarters``; returns None for anything else."""
    match = _HALF.fullmatch(text) if len(text) <= MAX_COMPOUND else None
    if match is None:
        return _single(text)
    unit = parse_unit(match.group("unit"), True)
    if unit is None:
        return None
    whole = int(match.group("number")) if match.group("number").isdigit() else 1
    value = whole + Fraction(_HALVES[match.group("part").lower().split()[-1]])
    return Quantity(value, str(value), None, 0, unit)


def _single(text: str) -> Quantity | None:
    """Reads ``an hour`` or ``a mile``: exactly one of a unit of the table."""
    match = _ONE.fullmatch(text)
    unit = parse_unit(match.group(1)) if match and is_known_unit(match.group(1)) else None
    return Quantity(1, "1", None, 1, unit) if unit is not None and unit.dims else None


def _parts(text: str) -> list[tuple[Number, Unit]] | None:
    """Returns the numbers with their units, from large to small, or None if the text consists of anything else."""
    found: list[tuple[Number, Unit]] = []
    at = 0
    comma = False
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or len(found) == MAX_PARTS:
            return None
        unit = _unit(match.group("unit").strip(), found)
        read = number_at(match.group("number"))
        if unit is None or not unit.dims or read is None or read[3] != len(match.group("number")):
            return None
        if found and (unit.dims != found[-1][1].dims or unit.factor >= found[-1][1].factor):
            return None
        if found and found[-1][0] != int(found[-1][0]):
            return None
        found.append((read[0], unit))
        comma |= match.group("joint").strip() == "," and match.end() < len(text)
        at = match.end()
    if len(found) < 2 or (comma and found[0][1].dims not in _COMMA_DIMS and not _imperial(found)):
        return None
    return found


def _imperial(parts: list[tuple[Number, Unit]]) -> bool:
    return parts[0][1].dims == (("length", 1),) and parts[0][1].factor == 12 * parts[1][1].factor


def _unit(text: str, before: list[tuple[Number, Unit]]) -> Unit | None:
    """Returns the unit of one part. Primes mean feet and inches; after degrees they mean minutes and seconds of arc."""
    if text in _ARC and before and before[0][1].dims == DEGREE.dims:
        return Unit(f"arc{text}", DEGREE.dims, _ARC[text])
    timed = bool(before) and before[0][1].dims == (("time", 1),)
    if text in AMBIGUOUS and (text != "m" or timed):
        return parse_unit(AMBIGUOUS[text])
    if text in ("分", "분") and before and before[0][1].dims == (("yuan", 1),):
        return parse_unit("fen")
    if text == "minutes" and before and before[0][1].dims == DEGREE.dims:
        return Unit("arc'", DEGREE.dims, _ARC["'"])
    return parse_unit(text, True)

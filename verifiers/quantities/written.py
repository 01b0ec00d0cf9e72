"""Reads numbers as people write them: decimals, groups of digits, fractions, mixed numbers, powers of ten, repetitions.

In: a text that begins with a number. Out: its exact value, the digits given, and the place where it ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verifiers.limits import MAX_DIGITS, TooLarge
from verifiers.quantities.units import NO_UNIT, Unit

Number = int | Fraction


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number as written.

    ``value``: the exact value. ``decimals``: digits after the decimal point as written, or None if the value is exact
    (integers, fractions, repeating decimals). ``digits``: significant digits as written. ``kind``: ``number``,
    ``time`` (value in minutes after midnight), ``ratio``, ``date``, ``based`` (a numeral with its base),
    ``ordinal`` (a place). ``text``: the canonical spelling. ``numeral``: the digits before the base subscript, or a
    date or quotient as written. ``parts``: the parts of a ratio, or the parts of a time as written. For a quantity in
    several units, ``parts`` is its value in the last unit.
    """

    value: Number
    text: str
    decimals: int | None = None
    digits: int = 0
    unit: Unit = NO_UNIT
    kind: str = "number"
    numeral: str = ""
    half_day: bool = False
    parts: tuple[Number, ...] = ()


_SIGN = r"[+-]?\s*"
_INT = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+(?! ?\d)|\d+)"
DECIMAL = rf"(?:{_INT}(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_INT})?(?:\.(\d*))?")
_REPEATING = re.compile(
    r"(\d*)\.(\d*)\s*(?:\\overline\s*\{\s*(\d+)\s*\}|\\bar\s*\{\s*(\d+)\s*\}|\\overline\s*(\d)"
    r"|\\bar\s*(\d)|\\dot\s*\{?(\d)\}?|\((\d+)\))"
)
_ELLIPSIS = re.compile(r"(\d*)\.(\d*?)(\d+?)\3\3+\s*(?:\.\.\.|\\l?dots|\\cdots)")
_FRACTION = re.compile(
    rf"\\frac\s*(?:\{{\s*({_SIGN}{DECIMAL})\s*\}}\s*\{{\s*({_SIGN}{DECIMAL})\s*\}}|(\d)\s*(\d)"
    rf"|(\d)\s*\{{\s*(\d+)\s*\}}|\{{\s*(\d+)\s*\}}\s*(\d))"
)
_SLASHED = re.compile(rf"({DECIMAL})\s*/\s*({_SIGN}{DECIMAL})(?![\d.])")
_MIXED = re.compile(
    r"(\d+)\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\\frac\s*(\d)\s*(\d)|(?:(?<=\d) +|\s+and\s+)"
    r"\(?(\d+)\s*/\s*(\d+)\)?)"
)
_SCIENTIFIC = re.compile(
    rf"({DECIMAL})\s*(?:[eE]({_SIGN}\d+)|(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*({_SIGN}\d+)\s*\}}"
    rf"|\(({_SIGN}\d+)\)|({_SIGN}\d+)))"
)


def decimal(whole: str, fraction: str | None, negative: bool, unit: Unit = NO_UNIT) -> Quantity:
    """Makes a quantity from the digits before and after the point."""
    if len(whole) + len(fraction or "") > MAX_DIGITS:
        raise TooLarge(f"a number of {len(whole) + len(fraction or '')} digits")
    if not fraction:
        value = -int(whole) if negative else int(whole)
        return Quantity(value, str(value), None, len(whole.lstrip("0")), unit)
    digits = whole + fraction
    scaled = int(digits)
    if negative:
        scaled = -scaled
    exact = Fraction(scaled, 10 ** len(fraction))
    number: Number = exact.numerator if exact.denominator == 1 else exact
    text = f"{'-' if negative else ''}{whole.lstrip('0') or '0'}.{fraction}"
    return Quantity(number, text, len(fraction), len(digits.lstrip("0")), unit)


def number_at(body: str) -> tuple[Number, int | None, int, int, str] | None:
    """Reads the unsigned number at the start of ``body``.

    Returns (value, decimals, significant digits, end, spelling).
    """
    match = _MIXED.match(body)
    if match:
        whole, parts = int(bounded(match.group(1))), [g for g in match.groups()[1:] if g is not None]
        top, bottom = int(bounded(parts[0])), int(bounded(parts[1]))
        if 0 < top < bottom:
            value = whole + Fraction(top, bottom)
            return tight(value), None, 0, match.end(), str(value)
        return None
    match = _FRACTION.match(body)
    if match:
        parts = [g for g in match.groups() if g is not None]
        return quotient(parts[0], parts[1], match.end())
    match = _SCIENTIFIC.match(body)
    if match:
        mantissa = plain_decimal(match.group(1))
        exponent = int(next(g for g in match.groups()[1:] if g is not None).replace(" ", ""))
        if mantissa is None:
            return None
        if abs(exponent) > MAX_DIGITS:
            raise TooLarge(f"a power of ten with exponent {exponent}")
        power = 10**exponent if exponent >= 0 else Fraction(1, 10**-exponent)
        decimals = None if mantissa.decimals is None else mantissa.decimals - exponent
        return (
            tight(Fraction(mantissa.value) * power),
            decimals,
            mantissa.digits,
            match.end(),
            f"{mantissa.text}e{exponent}",
        )
    match = _REPEATING.match(body)
    if match is None and len(body) < 120 and ("..." in body or "dots" in body):
        match = _ELLIPSIS.match(body)
    if match:
        start, fixed = bounded(match.group(1)), bounded(match.group(2))
        block = bounded(next(g for g in match.groups()[2:] if g is not None))
        value = Fraction(
            int((start + fixed + block) or "0") - int((start + fixed) or "0"), (10 ** len(block) - 1) * 10 ** len(fixed)
        )
        return tight(value), None, 0, match.end(), f"{start or '0'}.{fixed}({block})"
    match = _SLASHED.match(body)
    if match:
        return quotient(match.group(1), match.group(2), match.end())
    match = _DECIMAL.match(body)
    if match is None or not match.group().strip("., ") or re.match(r"[,.]\d|\d", body[match.end() :]):
        return None
    integer = re.sub("[, ]", "", match.group(1) or "")
    read = decimal(integer, match.group(2), False)
    return read.value, read.decimals, read.digits, match.end(), read.text


def quotient(top: str, bottom: str, end: int) -> tuple[Number, int | None, int, int, str] | None:
    """Returns the value of a quotient of two decimals, or None if it has no value."""
    upper, lower = plain_decimal(top), plain_decimal(bottom)
    if upper is None or lower is None or lower.value == 0:
        return None
    value = Fraction(upper.value) / Fraction(lower.value)
    return tight(value), None, 0, end, str(value)


def plain_decimal(text: str) -> Quantity | None:
    """Reads a decimal with groups of digits and a sign."""
    text = text.replace(" ", "").replace(",", "")
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("+-").partition(".")
    return decimal(whole, fraction, negative) if whole or fraction else None


def bounded(digits: str) -> str:
    """Returns the digits; raises :class:`TooLarge` if there are too many of them."""
    if len(digits) > MAX_DIGITS:
        raise TooLarge(f"a number of {len(digits)} digits")
    return digits


def tight(value: Number) -> Number:
    """Turns a whole fraction into an integer."""
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value

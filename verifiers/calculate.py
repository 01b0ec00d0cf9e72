"""The value of an arithmetic expression, exact where it is rational."""

from __future__ import annotations

from fractions import Fraction

from verifiers.compare.canonical import canonical_or_none
from verifiers.compare.numeric import real_value
from verifiers.compare.polynomials import Undefined
from verifiers.limits import TooLarge, Unparsed
from verifiers.parse.parser import parse

_DECIMALS = 12


def calculate(expression: str) -> str:
    """The value of an expression of numbers, as text: "84", "16.8", "3/7 = 0.428571428571…", "1.41421356237…".

    A rational value is exact: a decimal number where one of at most 12 decimals is the value, else a fraction and its
    first 12 decimals. Any other real value is cut after 12 decimals.

    Raises ValueError with the reason, one line, for anything that is no such expression or too large.
    """
    try:
        readings = parse(expression)
        form = canonical_or_none(readings[0])
    except (TooLarge, Undefined) as error:
        raise ValueError(str(error)) from None
    except Unparsed as error:
        raise ValueError(f"not an expression: {error}") from None
    exact = form.rational() if form is not None else None
    value = exact if exact is not None else real_value(readings[0])
    if value is None:
        raise ValueError("no real number, or one that is too large; accepted: an expression of numbers, such as 12 * 7")
    if exact is None:
        return f"{_decimals(value)}…"
    if 10**_DECIMALS % exact.denominator == 0:
        return _decimals(exact)
    return f"{exact} = {_decimals(exact)}…"


def _decimals(value: Fraction) -> str:
    """The number with at most 12 decimals, cut, without zeros at the end."""
    digits = str(abs(value) * 10**_DECIMALS // 1).rjust(_DECIMALS + 1, "0")
    text = f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text

"""Exact values of expressions, against Python's fractions and decimals."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifiers.calculate import calculate

numbers = st.integers(0, 10**6).map(str) | st.decimals(0, 1000, places=2, allow_nan=False).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({''.join(t)})"),
    max_leaves=6,
)


def exactly(expression: str) -> Fraction:
    """By Python, every number a fraction."""
    import re

    source = re.sub(r"\d+(\.\d+)?", lambda match: f"Fraction('{match[0]}')", expression)
    value: Fraction = eval(source, {"Fraction": Fraction})
    return value


@given(expressions)
def test_rational_values_are_exact(expression: str) -> None:
    try:
        value = exactly(expression)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="zero"):
            calculate(expression)
        return
    shown = calculate(expression)
    fraction, _, decimals = shown.rpartition(" = ")
    if fraction:
        assert Fraction(fraction) == value
        with localcontext(prec=80, rounding=ROUND_DOWN):
            cut = (Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal("1e-12"))
        assert Decimal(decimals.removesuffix("…")) == cut
    else:
        assert Fraction(shown) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * (3 + 4)", "84"),
        ("84/5", "16.8"),
        ("3/7", "3/7 = 0.428571428571…"),
        ("-1/3", "-1/3 = -0.333333333333…"),
        ("2^10 - 1", "1023"),
        ("sqrt(16)", "4"),
        ("sqrt(2)", "1.414213562373…"),
        ("1,234 * 2", "2468"),
        ("50% * 80", "40"),
        ("0.1 + 0.2", "0.3"),
        ("5!", "120"),
        ("0", "0"),
    ],
)
def test_what_a_policy_writes(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression", ["", "x + 1", "1/0", "10^(10^9)", "print(3)", "2 +", "((((", "9" * 100_000, "sqrt(-1)"]
)
def test_anything_else_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        calculate(expression)
    assert "\n" not in str(caught.value)

"""Random expressions against an oracle that knows no algebra: complex arithmetic at six points.

Each generated expression is a LaTeX text and, made beside it, a plain Python function. Nothing of `verifiers` has part
in the second, so the two can only agree if the text was read and compared rightly.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Callable

import pytest

from verifiers import verify

Point = dict[str, float]
Expression = tuple[str, Callable[[Point], complex]]
POINTS = [{"x": 0.37 + 0.61 * i, "y": 1.93 - 0.23 * i + 0.05 * i * i} for i in range(6)]


def number(rng: random.Random) -> Expression:
    a, b = rng.randint(0, 12), rng.randint(2, 9)
    choices: list[Expression] = [
        (str(a), lambda p: a),
        (f"\\frac{{{a}}}{{{b}}}", lambda p: a / b),
        (f"\\sqrt{{{b}}}", lambda p: math.sqrt(b)),
        ("\\pi", lambda p: math.pi),
        ("e", lambda p: math.e),
    ]
    return rng.choice(choices)


def variable(rng: random.Random) -> Expression:
    name = rng.choice("xy")
    return name, lambda p: p[name]


def expression(rng: random.Random, depth: int) -> Expression:
    if depth == 0 or rng.random() < 0.15:
        return number(rng) if rng.random() < 0.6 else variable(rng)
    (a, f), (b, g) = expression(rng, depth - 1), expression(rng, depth - 1)
    power = rng.randint(2, 3)
    choices: list[Expression] = [
        (f"{a}+{b}", lambda p: f(p) + g(p)),
        (f"\\left({a}\\right)+{b}", lambda p: f(p) + g(p)),
        (f"{a}-\\left({b}\\right)", lambda p: f(p) - g(p)),
        (f"({a})({b})", lambda p: f(p) * g(p)),
        (f"({a})\\cdot ({b})", lambda p: f(p) * g(p)),
        (f"\\frac{{{a}}}{{{b}}}", lambda p: f(p) / g(p)),
        (f"({a})^{{{power}}}", lambda p: f(p) ** power),
        (f"\\sqrt{{({a})^2+1}}", lambda p: cmath.sqrt(f(p) ** 2 + 1)),
        (f"\\sin({a})", lambda p: cmath.sin(f(p))),
        (f"\\cos({a})", lambda p: cmath.cos(f(p))),
        (f"-({a})", lambda p: -f(p)),
    ]
    return rng.choice(choices)


def pair(rng: random.Random) -> tuple[Expression, Expression]:
    """An expression, and another: unrelated, equal by an identity, or near one."""
    a, f = expression(rng, 3)
    b, g = expression(rng, 2)
    c, h = number(rng)
    k = rng.choice([1, 1, 1, 2])
    choices: list[tuple[Expression, Expression]] = [
        ((a, f), (b, g)),
        ((a, f), (f"({a})+({b})-({b})", lambda p: f(p) + g(p) - g(p))),
        ((a, f), (f"{c}\\cdot({a})", lambda p: h(p) * f(p))),
        ((f"({a})^2", lambda p: f(p) ** 2), (f"(({a})+1)^2-2({a})-{k}", lambda p: f(p) ** 2 + 1 - k)),
        ((f"({a})({c}+1)", lambda p: f(p) * (h(p) + 1)), (f"({a})({c})+{k}({a})", lambda p: f(p) * (h(p) + k))),
    ]
    return rng.choice(choices)


def values(f: Callable[[Point], complex]) -> list[complex | None]:
    found: list[complex | None] = []
    for point in POINTS:
        try:
            found.append(complex(f(point)))
        except (ZeroDivisionError, OverflowError):
            found.append(None)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_agree_with_plain_arithmetic(seed: int) -> None:
    rng = random.Random(seed)
    judged = {True: 0, False: 0}
    for _ in range(500):
        (a, f), (b, g) = pair(rng)
        both = [(u, v) for u, v in zip(values(f), values(g), strict=True) if u is not None and v is not None]
        if len(both) < 3 or any(max(abs(u), abs(v)) > 1e5 for u, v in both):
            continue
        same = all(abs(u - v) <= 1e-8 * max(abs(u), abs(v)) + 1e-12 for u, v in both)
        verdict = verify(a, b)
        judged[same] += 1
        assert verdict.outcome != ("unequal" if same else "equal"), (a, b, same, verdict)
    assert min(judged.values()) > 50, judged

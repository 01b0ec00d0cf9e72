r"""Evaluates trees in double precision with a running error bound: the cheapest way to refute equality.

In: a scalar tree and values of its symbols. Out: a complex value and a bound on its error, or :class:`Unfit`. Two
values farther apart than their bounds are certainly different; closer ones prove nothing.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping

from verifiers.parse.tree import Add, Call, Const, Measured, Mul, Node, Num, Pow, Sym
from verifiers.quantities.units import DEGREE, PERCENT

EPSILON = 4.5e-16
Value = tuple[complex, float]


class Unfit(Exception):
    """Double precision cannot bound the error of this tree."""


def evaluate(node: Node, values: Mapping[str, float]) -> Value:
    """Returns (value, error bound) of a scalar tree."""
    try:
        value, error = _evaluate(node, values)
    except (OverflowError, ZeroDivisionError, ValueError) as reason:
        raise Unfit(str(reason)) from reason
    if not (math.isfinite(value.real) and math.isfinite(value.imag) and error < 1e300):
        raise Unfit("not finite")
    return value, error


def _evaluate(node: Node, values: Mapping[str, float]) -> Value:
    if isinstance(node, Num):
        z = complex(node.value)
        return z, abs(z) * EPSILON
    if isinstance(node, Sym):
        if node.name not in values:
            raise Unfit(node.name)
        return complex(values[node.name]), 0.0
    if isinstance(node, Const):
        if node.name == "pi":
            return complex(math.pi), 5e-16
        if node.name == "e":
            return complex(math.e), 5e-16
        if node.name == "i":
            return 1j, 0.0
        raise Unfit(node.name)
    if isinstance(node, Add):
        total, error, size = 0j, 0.0, 0.0
        for arg in node.args:
            z, bound = _evaluate(arg, values)
            total, error, size = total + z, error + bound, size + abs(z)
        return total, error + size * EPSILON
    if isinstance(node, Mul):
        product, error = 1 + 0j, 0.0
        for arg in node.args:
            z, bound = _evaluate(arg, values)
            error = abs(product) * bound + abs(z) * error + error * bound + abs(product * z) * EPSILON
            product *= z
        return product, error
    if isinstance(node, Pow):
        return _power(node, values)
    if isinstance(node, Call):
        return _call(node, values)
    if isinstance(node, Measured) and node.unit in (DEGREE, PERCENT):
        z, bound = _evaluate(node.value, values)
        scale = math.pi / 180 if node.unit is DEGREE else 0.01
        return z * scale, bound * scale + abs(z) * scale * EPSILON
    raise Unfit(type(node).__name__)


def _power(node: Pow, values: Mapping[str, float]) -> Value:
    base, error = _evaluate(node.base, values)
    size = abs(base)
    exponent = node.exponent
    if isinstance(exponent, Num) and isinstance(exponent.value, int):
        n = exponent.value
        if abs(n) > 10_000:
            raise Unfit("exponent")
        if n < 0 and size <= 2 * error:
            raise Unfit("division by something near zero")
        value = base**n
        slack = (size + error) ** (n - 1) if n > 0 else (size - error) ** (n - 1)
        return value, abs(n) * slack * error + abs(value) * EPSILON * (abs(n) + 2)
    power, power_error = _evaluate(exponent, values)
    if size <= 4 * error or (base.imag and abs(base.imag) <= 2 * error and base.real < 0):
        raise Unfit("near a branch point")
    if node.real_root and base.real < 0 and base.imag == 0 and isinstance(exponent, Num):
        sign = -1 if exponent.value.numerator % 2 else 1
        value = complex(sign * size ** float(exponent.value))
    elif base.imag == 0 and base.real > 0 and power.imag == 0:
        value = complex(base.real**power.real)
    else:
        value = cmath.exp(power * cmath.log(base))
    log = abs(cmath.log(base))
    relative = 2 * abs(power) * error / size + (log + 1) * power_error + EPSILON * (4 + abs(power) * (log + 1) * 2)
    if relative > 0.01:
        raise Unfit("ill conditioned")
    return value, 1.1 * abs(value) * relative


def _call(node: Call, values: Mapping[str, float]) -> Value:
    z, error = _evaluate(node.args[0], values) if node.args else (0j, 0.0)
    name = node.name
    if name in ("sin", "cos"):
        if abs(z) > 1e6 or abs(z.imag) > 20:
            raise Unfit("argument")
        value = cmath.sin(z) if name == "sin" else cmath.cos(z)
        return value, math.cosh(z.imag) * 1.1 * error + EPSILON * (abs(value) + abs(z) + 1)
    if name in ("tan", "cot", "sec", "csc"):
        sine, cosine = (_call(Call(part, node.args), values) for part in ("sin", "cos"))
        top = {"tan": sine, "cot": cosine}.get(name, (1 + 0j, 0.0))
        under = cosine if name in ("tan", "sec") else sine
        if abs(under[0]) <= 4 * under[1]:
            raise Unfit("near a pole")
        value = top[0] / under[0]
        return value, 2 * (top[1] + abs(value) * under[1]) / abs(under[0]) + abs(value) * EPSILON
    if name in ("ln", "log"):
        if abs(z) <= 4 * error or (z.imag and abs(z.imag) <= 2 * error and z.real < 0) or not z:
            raise Unfit("near a branch point")
        value = cmath.log(z)
        bound = 2 * error / abs(z) + EPSILON * (abs(value) + 1)
        if name == "ln":
            return value, bound
        if len(node.args) == 1:
            raise Unfit("log without a base")
        under = _call(Call("ln", (node.args[1],)), values)
        if abs(under[0]) <= 4 * under[1]:
            raise Unfit("base near one")
        quotient = value / under[0]
        return quotient, 2 * (bound + abs(quotient) * under[1]) / abs(under[0]) + abs(quotient) * EPSILON
    if name == "abs":
        return complex(abs(z)), error + abs(z) * EPSILON
    if name in ("atan", "sinh", "cosh", "tanh") and z.imag == 0 and abs(z) < 100:
        value = complex(getattr(math, name)(z.real))
        slope = math.cosh(abs(z.real) + error) if name in ("sinh", "cosh") else 1.0
        return value, slope * error * 1.1 + abs(value) * EPSILON * 2
    raise Unfit(name)


def certainly_different(a: Value, b: Value) -> bool:
    """Whether the two values differ by more than their error bounds allow."""
    return abs(a[0] - b[0]) > 8 * (a[1] + b[1]) + 1e-290

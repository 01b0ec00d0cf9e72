r"""Proves with sympy that two expressions are equal or different; runs in a worker process only.

In: two scalar trees that agree numerically. Out: True if their difference is proved zero, False if it is proved not
zero, None if neither is proved. The sympy expressions come from our own tree. No text ever reaches sympy. This module
has no time limit: the caller may kill it.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from verifiers.parse.tree import Add, Apply, Big, Call, Const, Measured, Mul, Node, Num, Pow, Sym
from verifiers.quantities.units import DEGREE, PERCENT

_FUNCTIONS: dict[str, Any] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "cot": sp.cot, "sec": sp.sec, "csc": sp.csc, "asin": sp.asin,
    "acos": sp.acos,
    "atan": sp.atan, "acot": sp.acot, "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh, "coth": sp.coth,
    "asinh": sp.asinh,
    "acosh": sp.acosh, "atanh": sp.atanh, "ln": sp.log, "abs": sp.Abs, "floor": sp.floor, "ceil": sp.ceiling,
    "sgn": sp.sign,
    "re": sp.re, "im": sp.im, "arg": sp.arg, "erf": sp.erf, "factorial": sp.factorial, "factorial2": sp.factorial2,
    "binomial": sp.binomial, "max": sp.Max, "min": sp.Min, "gcd": sp.gcd, "lcm": sp.lcm,
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {"pi": sp.pi, "e": sp.E, "i": sp.I, "oo": sp.oo}


class Unsupported(Exception):
    """Sympy has no counterpart for the expression."""


def to_sympy(node: Node) -> Any:
    """Returns the sympy expression of a scalar tree; symbols are real."""
    if isinstance(node, Num):
        return sp.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Sym):
        return sp.Symbol(node.name, real=True)
    if isinstance(node, Const):
        if node.name not in _CONSTANTS:
            raise Unsupported(node.name)
        return _CONSTANTS[node.name]
    if isinstance(node, Add):
        return sp.Add(*map(to_sympy, node.args))
    if isinstance(node, Mul):
        return sp.Mul(*map(to_sympy, node.args))
    if isinstance(node, Pow):
        base, exponent = to_sympy(node.base), to_sympy(node.exponent)
        if node.real_root and base.is_negative:
            return -sp.Pow(-base, exponent)
        return sp.Pow(base, exponent)
    if isinstance(node, Call):
        args = [to_sympy(arg) for arg in node.args]
        if node.name == "log" and len(args) == 2:
            return sp.log(args[0]) / sp.log(args[1])
        if node.name not in _FUNCTIONS:
            raise Unsupported(node.name)
        return _FUNCTIONS[node.name](*args)
    if isinstance(node, Apply):
        return sp.Function(node.name)(*map(to_sympy, node.args))
    if isinstance(node, Big):
        limits = (sp.Symbol(node.index, real=True), to_sympy(node.low), to_sympy(node.high))
        return (sp.Sum if node.kind == "sum" else sp.Product)(to_sympy(node.body), limits).doit()
    if isinstance(node, Measured) and node.unit in (DEGREE, PERCENT):
        return to_sympy(node.value) * (sp.pi / 180 if node.unit is DEGREE else sp.Rational(1, 100))
    raise Unsupported(type(node).__name__)


def prove(a: Node, b: Node) -> bool | None:
    """Whether ``a - b`` is zero: True and False are proofs."""
    try:
        gap = to_sympy(a) - to_sympy(b)
    except (Unsupported, TypeError, ValueError, AttributeError):
        return None
    if gap == 0:
        return True
    for step in (sp.expand, sp.cancel, sp.trigsimp, _logarithms, sp.radsimp, sp.simplify, _exponentials):
        try:
            changed = step(gap)
        except (
            sp.PolynomialError,
            TypeError,
            ValueError,
            NotImplementedError,
            AttributeError,
            RecursionError,
            ZeroDivisionError,
        ):
            continue
        if changed == 0:
            return True
        if changed.is_number and changed.is_zero is False and changed.is_Rational:
            return False
    return None


def _logarithms(gap: Any) -> Any:
    return sp.expand(sp.expand_log(gap, force=False))


def _exponentials(gap: Any) -> Any:
    return sp.simplify(sp.expand(gap.rewrite(sp.exp)))

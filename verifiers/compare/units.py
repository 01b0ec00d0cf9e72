"""Compares values with units: percentages, angles, other units of one dimension, a missing unit.

In: two trees, a policy, and the comparison of bare values. Out: a :class:`Decision`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from verifiers.compare.kinds import rescaled, unit_of
from verifiers.parse.tree import Const, Measured, Node, walk
from verifiers.policy import Policy
from verifiers.quantities.units import DEGREE, NO_UNIT, PERCENT, Unit
from verifiers.verdict import Layer


class Decision(NamedTuple):
    """Whether two answers are equal, which layer decided, and the reason. ``equal``: None if it stays open."""

    equal: bool | None
    layer: Layer
    reason: str


Scalars = Callable[[Node, Node], Decision]


def measured(a: Node, b: Node, policy: Policy, scalar: Scalars) -> Decision:
    """Whether two values, with or without units, are the same quantity. ``scalar`` compares the bare values."""
    x, unit_x = unit_of(a)
    y, unit_y = unit_of(b)
    if unit_x == unit_y or policy.units == "ignore":
        return scalar(x, y)
    if PERCENT in (unit_x, unit_y):
        return _percent(x, unit_x, y, unit_y, policy, scalar)
    if DEGREE in (unit_x, unit_y) and (
        NO_UNIT in (unit_x, unit_y) or unit_x.dims == (("radian", 1),) or unit_y.dims == (("radian", 1),)
    ):
        return _angles(x, unit_x, y, unit_y, policy, scalar)
    if unit_x.dims == unit_y.dims:
        if unit_x.factor == unit_y.factor:
            return scalar(x, y)
        return scalar(rescaled(x, unit_x.factor), rescaled(y, unit_y.factor))
    if NO_UNIT in (unit_x, unit_y):
        if policy.units == "required" or unit_x.letter or unit_y.letter:
            return Decision(False, "exact", "a unit is missing")
        return scalar(x, y)
    return Decision(False, "exact", f"different units: {unit_x.name} and {unit_y.name}")


def _percent(x: Node, unit_x: Unit, y: Node, unit_y: Unit, policy: Policy, scalar: Scalars) -> Decision:
    """Compare a percentage with a bare number."""
    if (NO_UNIT not in (unit_x, unit_y)) or policy.percent == "strict":
        return Decision(False, "exact", "a percentage against something else")
    result = Decision(False, "exact", "different percentages")
    if policy.percent in ("either", "value"):
        hundredth = Fraction(1, 100)
        result = scalar(
            rescaled(x, hundredth) if unit_x is PERCENT else x, rescaled(y, hundredth) if unit_y is PERCENT else y
        )
    if result.equal is not True and policy.percent in ("either", "number"):
        other = scalar(x, y)
        result = other if other.equal is not False or result.equal is False else result
    return result


def _angles(x: Node, unit_x: Unit, y: Node, unit_y: Unit, policy: Policy, scalar: Scalars) -> Decision:
    """Compare degrees with a bare number or radians."""
    radians = (("radian", 1),)
    result = Decision(False, "exact", "different angles")
    if radians not in (unit_x.dims, unit_y.dims) and policy.angles in ("either", "degrees"):
        if policy.units == "required":
            return Decision(False, "exact", "a unit is missing")
        result = scalar(x, y)
    if result.equal is not True and policy.angles in ("either", "radians"):
        turned = (Measured(x, DEGREE) if unit_x is DEGREE else x, Measured(y, DEGREE) if unit_y is DEGREE else y)
        if any(part == Const("pi") for side in turned for part in walk(side)) or radians in (
            unit_x.dims,
            unit_y.dims,
        ):
            result = scalar(*turned)
    return result

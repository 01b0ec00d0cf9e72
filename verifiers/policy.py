"""The conventions on which graders differ. Each has a name and a default, and each problem can override it.

In: nothing. Out: :class:`Policy`, a frozen value that every comparison receives.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Policy:
    """The conventions of one comparison; change them with ``Policy(percent="value")`` or ``dataclasses.replace``.

    ``percent``: what ``10%`` equals. ``either``: 10 %, 0.1 and 10; ``value``: 10 % and 0.1; ``number``: 10 % and 10;
    ``strict``: only another percentage.
    ``units``: whether units must agree. ``optional``: a side may leave its unit out, but two different units are
    unequal; ``required``: both sides have a unit, or neither has one; ``ignore``: units do not count. What was counted
    (``12 apples``) is a unit too.
    ``order``: whether order counts in comma lists without brackets. ``free``: ``1, 2`` equals ``2, 1``; ``kept``: it
    does not.
    ``tuples``: whether ``(1, 3)`` equals ``{1, 3}`` or ``1, 3``. ``lenient``: the same elements in the same order are
    equal; ``strict``: a tuple is neither a set nor a list.
    ``assignment``: whether ``x = 5`` equals ``5``. ``optional``: they are equal; ``required``: they are not.
    ``intervals``: whether an inequality can equal an interval. ``reference``: only if the reference is the inequality
    and the answer is the interval; ``either``: both ways; ``strict``: never.
    ``base``: whether ``52_8`` equals ``52``. ``optional``: a side may leave the base out; ``required``: a number
    without a base is decimal, so 52 is decimal 52.
    ``angles``: what ``90^\\circ`` equals. ``either``: ``90`` and ``\\pi/2``; ``degrees``: only 90; ``radians``: only
    pi/2.
    ``dates``: what ``3/5`` means if the other side is a date. ``words``: a fraction, but 3/5/2024 is March 5;
    ``month_first``: March 5; ``day_first``: 3 May, and 3/5/2024 is 3 May too.
    ``comma``: what ``1,22`` means. ``either``: the list 1, 22 and the number 1.22, while 1,234 is one thousand;
    ``group``: a comma is never a decimal mark; ``decimal``: a comma between digits is always a decimal mark, so 1,234
    is 1.234, and 1.234 is one thousand.
    ``decimals``: when an approximate decimal equals an exact value or a longer decimal. ``digits``: if it is that value
    correctly rounded at the digits given (at least four significant digits); ``exact``: there is no tolerance.
    ``tolerance``: how far a written decimal may be from the value of the other side, as a fraction of the larger of
    the two, from 0 (only what ``decimals`` allows) to 0.5. With 0.01, 9.81 equals 9.8. Two exact values get no
    tolerance.
    ``constants``: whether ``\\ln x + C`` equals ``\\ln x + K``. ``named``: they are unequal; ``renamed``: all letters
    except x, y, z, t, n may have other names. A declared letter (``where C is a constant``) may always be renamed.
    ``unproven``: the result if both sides agree to high precision at every point tried, but no proof was found in time.
    ``equal``: accept the answer; ``timeout``: report the failure.
    """

    percent: Literal["either", "value", "number", "strict"] = "either"
    units: Literal["optional", "required", "ignore"] = "optional"
    order: Literal["free", "kept"] = "free"
    tuples: Literal["lenient", "strict"] = "lenient"
    assignment: Literal["optional", "required"] = "optional"
    intervals: Literal["reference", "either", "strict"] = "reference"
    base: Literal["optional", "required"] = "optional"
    angles: Literal["either", "degrees", "radians"] = "either"
    dates: Literal["words", "month_first", "day_first"] = "words"
    comma: Literal["either", "group", "decimal"] = "either"
    decimals: Literal["digits", "exact"] = "digits"
    tolerance: float = 0.0
    constants: Literal["named", "renamed"] = "named"
    unproven: Literal["equal", "timeout"] = "equal"

    def __post_init__(self) -> None:
        for name, accepted in _accepted().items():
            value = getattr(self, name)
            if value not in accepted:
                raise ValueError(f"policy {name}: {value!r} (accepted: {', '.join(accepted)})")
        given = self.tolerance
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 0.5:
            raise ValueError(f"policy tolerance: {given!r} (accepted: a number from 0 to 0.5)")


_ACCEPTED: dict[str, tuple[str, ...]] = {}


def _accepted() -> dict[str, tuple[str, ...]]:
    if not _ACCEPTED:
        hints = get_type_hints(Policy)
        _ACCEPTED.update(
            {field.name: get_args(hints[field.name]) for field in fields(Policy) if get_args(hints[field.name])}
        )
    return _ACCEPTED


DEFAULT_POLICY = Policy()

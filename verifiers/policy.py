"""The conventions on which graders differ, each with a name, a default and a per-problem override.

In: nothing. Out: :class:`Policy`, a frozen value handed to every comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Policy:
    """Conventions of a comparison; override with ``Policy(percent="value")`` or ``dataclasses.replace``.

    ``percent``: what ``10%`` equals. ``either``: 10 % , 0.1 and 10; ``value``: 10 % and 0.1; ``number``: 10 % and 10;
    ``strict``: only another percentage.
    ``units``: ``optional``: a unit may be left out, but two different units are unequal; ``required``: both or neither;
    ``ignore``: units are not looked at. What was counted (``12 apples``) is a unit in this sense.
    ``order``: of comma lists without brackets. ``free``: ``1, 2`` equals ``2, 1``; ``kept``: it does not.
    ``tuples``: ``(1, 3)`` against ``{1, 3}`` or ``1, 3``. ``lenient``: the same elements in the same order are equal;
    ``strict``: a tuple is neither a set nor a list.
    ``assignment``: ``x = 5`` against ``5``. ``optional``: equal; ``required``: not.
    ``intervals``: an inequality against an interval. ``reference``: the reference directs: where it is an inequality,
    an interval is accepted, not the other way round; ``either``: both ways; ``strict``: never.
    ``base``: ``52_8`` against ``52``. ``optional``: the base may be left out; ``required``: then it is decimal 52.
    ``angles``: ``90^\\circ``. ``either``: equals ``90`` and ``\\pi/2``; ``degrees``: only 90; ``radians``: only pi/2.
    ``dates``: what ``3/5`` is beside a date. ``words``: a fraction, and 3/5/2024 is March 5; ``month_first``: March 5;
    ``day_first``: 3 May, and 3/5/2024 too.
    ``comma``: what ``1,22`` is. ``either``: the list 1, 22 and the number 1.22, while 1,234 is one thousand; ``group``:
    never a decimal mark; ``decimal``: always one between digits, so that 1,234 is 1.234 and 1.234 is one thousand.
    ``decimals``: an approximate decimal against an exact value or a longer decimal. ``digits``: equal if it is that
    value correctly rounded at the digits given (at least four significant ones); ``exact``: no tolerance at all.
    ``tolerance``: how far a written decimal may be from the value of the other side, as a part of the larger of the
    two, from 0 (only what ``decimals`` allows) to 0.5; 0.01 takes 9.81 for 9.8. Two exact values have none.
    ``constants``: ``\\ln x + C`` against ``\\ln x + K``. ``named``: unequal; ``renamed``: letters but x, y, z, t, n may
    have other names, unless a letter is declared (``where C is a constant``), which lets it be renamed anyway.
    ``unproven``: both sides agree to high precision at every point tried, but no proof was found in time.
    ``equal``: accept; ``timeout``: report the failure.
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

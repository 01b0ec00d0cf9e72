r"""Splits a function given by cases into its values, each with the condition under which it holds.

In: a ``cases`` sequence. Out: its cases. "Otherwise" becomes the set that the other conditions do not cover.
"""

from __future__ import annotations

from typing import NamedTuple

from verifiers.compare.regions import Region, complement, piece, region
from verifiers.parse.rows import OTHERWISE
from verifiers.parse.tree import Node, Relation, Seq, Sym


class Case(NamedTuple):
    """A value and its condition. ``where``: the condition as a set of reals, or None if it is not such a set."""

    value: Node
    condition: Node
    where: Region | None


def pieces_of(node: Seq) -> list[Case]:
    """Returns the cases of a function, in the order given."""
    found = [Case(item.items[0], item.items[1], _where(item.items[1])) for item in node.items if isinstance(item, Seq)]
    stated = [case.where for case in found if case.condition != OTHERWISE]
    rest = _rest([where for where in stated if where is not None]) if None not in stated else None
    return [case._replace(where=rest) if case.condition == OTHERWISE else case for case in found]


def _where(condition: Node) -> Region | None:
    if isinstance(condition, Relation) and condition.ops == ("=",) and isinstance(condition.args[0], Sym):
        point = piece(condition.args[1], condition.args[1], True, True)
        return None if point is None or point.order is None else (point,)
    return region(condition, loose=True)


def _rest(stated: list[Region]) -> Region | None:
    """Returns the set that no condition covers."""
    covered = [part for where in stated for part in where]
    if any(part.order is None for part in covered):
        return None
    covered.sort(key=lambda part: (part.order or (0, 0), not part.low_closed))
    return complement(tuple(covered))

r"""Brings subsets of the real line into one normal form: intervals, unions, solution sets of inequalities.

In: a tree that may denote a set of numbers. Out: a :class:`Region`, or None if the tree is not such a set. The region
is sorted and merged where the ends are closed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from verifiers.compare.canonical import canonical
from verifiers.compare.names import is_name
from verifiers.compare.numeric import real_value
from verifiers.compare.polynomials import UNIT, Unable, difference
from verifiers.parse.tree import (
    INFINITY,
    Apply,
    Call,
    Const,
    Interval,
    Node,
    Num,
    Relation,
    Seq,
    SetOp,
    Sym,
    is_scalar,
    negated,
    symbols,
)

MINUS_INFINITY = negated(INFINITY)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval. A point is a closed interval from itself to itself. ``order``: the places of the ends, if known."""

    low: Node
    high: Node
    low_closed: bool
    high_closed: bool
    order: tuple[Fraction, Fraction] | None


Region = tuple[Piece, ...]
_FAR = Fraction(10) ** 2000


def place(node: Node) -> Fraction | None:
    """Returns the place of an end on the line; infinities lie farther out than any number."""
    if node == INFINITY:
        return _FAR
    if node == MINUS_INFINITY:
        return -_FAR
    return real_value(node) if is_scalar(node) else None


def piece(low: Node, high: Node, low_closed: bool, high_closed: bool) -> Piece | None:
    """Returns a piece, or None if it is empty."""
    a, b = place(low), place(high)
    if low == MINUS_INFINITY:
        low_closed = False
    if high == INFINITY:
        high_closed = False
    order = None if a is None or b is None else (a, b)
    if order and (order[0] > order[1] or (order[0] == order[1] and not (low_closed and high_closed))):
        return None
    return Piece(low, high, low_closed, high_closed, order)


def region(node: Node, loose: bool = False) -> Region | None:
    """Returns the set that a tree denotes, or None. ``loose``: ``(a, b)`` and ``[a, b]`` may be intervals."""
    if isinstance(node, Interval):
        return _merged([piece(node.low, node.high, node.low_closed, node.high_closed)])
    if isinstance(node, Const) and node.name in ("R", "empty"):
        return () if node.name == "empty" else _merged([piece(MINUS_INFINITY, INFINITY, False, False)])
    if isinstance(node, Seq):
        if loose and node.kind in ("tuple", "bracket") and len(node.items) == 2 and all(map(_end, node.items)):
            closed = node.kind == "bracket"
            ends = piece(node.items[0], node.items[1], closed, closed)
            return None if ends is None else (ends,)
        if node.kind == "set" and all(map(is_scalar, node.items)):
            return _merged([piece(item, item, True, True) for item in node.items])
        if node.kind == "list" and all(isinstance(item, Relation) for item in node.items):
            parts = [region(item) for item in node.items]
            return _joined([part for part in parts if part is not None], len(parts), node.joint)
        if node.kind == "list" and node.joint == "or" and loose:
            return _operation(SetOp("cup", node.items))
        return None
    if isinstance(node, SetOp):
        return _operation(node)
    if isinstance(node, Relation):
        if node.ops == ("in",):
            return region(node.args[1], loose=True) if is_name(node.args[0]) else None
        return _solved(node)
    return None


def _end(node: Node) -> bool:
    return is_scalar(node)


def _joined(parts: list[Region], wanted: int, joint: str) -> Region | None:
    if len(parts) != wanted:
        return None
    if joint == "and":
        result = parts[0]
        for part in parts[1:]:
            both = _intersection(result, part)
            if both is None:
                return None
            result = both
        return result
    return _merged([item for part in parts for item in part])


def _operation(node: SetOp) -> Region | None:
    parts = [region(arg, loose=True) for arg in node.args]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    if node.op == "cup":
        return _merged([item for part in known for item in part])
    result = known[0]
    for part in known[1:]:
        other = part if node.op == "cap" else complement(part)
        both = None if other is None else _intersection(result, other)
        if both is None:
            return None
        result = both
    return result


def complement(parts: Region) -> Region | None:
    """Returns the part of the line outside a sorted region, or None if an end is not a number."""
    if any(item.order is None for item in parts):
        return None
    gaps: list[Piece | None] = []
    low, low_closed = MINUS_INFINITY, False
    for item in parts:
        gaps.append(piece(low, item.low, low_closed, not item.low_closed))
        low, low_closed = item.high, not item.high_closed
    gaps.append(piece(low, INFINITY, low_closed, False))
    return _merged(gaps)


def _intersection(a: Region, b: Region) -> Region | None:
    found: list[Piece | None] = []
    for x in a:
        for y in b:
            if x.order is None or y.order is None:
                return None
            low_from = x if (x.order[0], not x.low_closed) >= (y.order[0], not y.low_closed) else y
            high_from = x if (x.order[1], x.high_closed) <= (y.order[1], y.high_closed) else y
            found.append(piece(low_from.low, high_from.high, low_from.low_closed, high_from.high_closed))
    return _merged(found)


def _merged(parts: list[Piece | None]) -> Region:
    kept = [part for part in parts if part is not None]
    if any(part.order is None for part in kept):
        return tuple(kept)
    kept.sort(key=lambda part: (part.order or (Fraction(0), Fraction(0)), not part.low_closed))
    merged: list[Piece] = []
    for part in kept:
        last = merged[-1] if merged else None
        if last and last.order and part.order:
            touching = part.order[0] == last.order[1] and (part.low_closed or last.high_closed)
            if part.order[0] < last.order[1] or touching:
                longer = part if (part.order[1], part.high_closed) > (last.order[1], last.high_closed) else last
                low_closed = last.low_closed or (part.order[0] == last.order[0] and part.low_closed)
                order = (last.order[0], longer.order[1]) if longer.order else None
                merged[-1] = Piece(last.low, longer.high, low_closed, longer.high_closed, order)
                continue
        merged.append(part)
    return tuple(merged)


# ---------------------------------------------------------------------- inequalities


def unknown_of(node: Relation) -> Node | None:
    """Returns the single unknown of an inequality: a symbol, ``f(x)`` or ``|x|``."""
    middle_first = sorted(node.args, key=lambda arg: arg is not node.args[len(node.args) // 2])
    for arg in middle_first if len(node.args) == 3 else node.args:
        if isinstance(arg, (Sym, Apply)) or (
            isinstance(arg, Call) and arg.name == "abs" and isinstance(arg.args[0], Sym)
        ):
            return arg
    names = set().union(*(symbols(arg) for arg in node.args))
    return Sym(names.pop()) if len(names) == 1 else None


def _solved(node: Relation) -> Region | None:
    """Returns the solution set of a chain of inequalities in one unknown, which is alone or linear."""
    if not all(op in ("<", "<=", ">", ">=", "!=") for op in node.ops):
        return None
    unknown = unknown_of(node)
    if unknown is None:
        return None
    result: Region = _merged([piece(MINUS_INFINITY, INFINITY, False, False)])
    for op, left, right in zip(node.ops, node.args[:-1], node.args[1:], strict=True):
        if not (is_scalar(left) or left in (INFINITY, MINUS_INFINITY)):
            return None
        half = _half_line(unknown, op, left, right)
        if half is None:
            return None
        if len(node.ops) == 2 and any(item.order is None for item in half):
            return _between(node, unknown)
        both = (
            _intersection(result, half) if result != _merged([piece(MINUS_INFINITY, INFINITY, False, False)]) else half
        )
        if both is None:
            return None
        result = both
    return result


def _between(node: Relation, unknown: Node) -> Region | None:
    """Reads ``a < x <= b`` with ends that are not numbers."""
    if node.args[1] != unknown or not isinstance(unknown, (Sym, Apply)):
        return None
    ops, ends = node.ops, (node.args[0], node.args[2])
    if all(op in (">", ">=") for op in ops):
        ops, ends = (_FLIPPED[ops[1]], _FLIPPED[ops[0]]), (ends[1], ends[0])
    if not all(op in ("<", "<=") for op in ops):
        return None
    return _merged([piece(ends[0], ends[1], ops[0] == "<=", ops[1] == "<=")])


def _half_line(unknown: Node, op: str, left: Node, right: Node) -> Region | None:
    if right == unknown:
        left, right, op = right, left, _FLIPPED[op]
    if left == unknown:
        if isinstance(unknown, Sym) and unknown.name in symbols(right):
            return None
        if isinstance(unknown, Call):
            return _absolute(op, right)
        return _ray(op, right)
    if not isinstance(unknown, Sym):
        return None
    solved = _linear(unknown, left, right)
    if solved is None:
        return None
    bound, positive = solved
    return _ray(op if positive else _FLIPPED[op], Num(bound.numerator if bound.denominator == 1 else bound))


def _ray(op: str, end: Node) -> Region:
    if op in ("<", "<="):
        return _merged([piece(MINUS_INFINITY, end, False, op == "<=")])
    if op in (">", ">="):
        return _merged([piece(end, INFINITY, op == ">=", False)])
    return _merged([piece(MINUS_INFINITY, end, False, False), piece(end, INFINITY, False, False)])


def _absolute(op: str, end: Node) -> Region | None:
    where = place(end)
    if where is None or where < 0:
        return None
    if op in ("<", "<="):
        return _merged([piece(negated(end), end, op == "<=", op == "<=")])
    if op in (">", ">="):
        closed = op == ">="
        return _merged([piece(MINUS_INFINITY, negated(end), False, closed), piece(end, INFINITY, closed, False)])
    return None


def _linear(unknown: Sym, left: Node, right: Node) -> tuple[Fraction, bool] | None:
    """Returns (-b / a, a > 0) for ``a x + b op 0``."""
    try:
        a, b = canonical(left), canonical(right)
        gap = difference(a, b)
    except Unable:
        return None
    if len(a.denominator) != 1 or len(b.denominator) != 1:
        return None
    target = frozenset([(("sym", unknown.name), Fraction(1))])
    if not set(gap) <= {UNIT, target} or target not in gap:
        return None
    return -gap.get(UNIT, Fraction(0)) / gap[target], gap[target] > 0

"""Answers the questions that a comparison asks about one tree: is it a value, a list, a set; its sign, letters, units.

In: trees. Out: answers to single questions about them, and their parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from verifiers.compare.names import is_assignment
from verifiers.parse.tree import (
    Add,
    Apply,
    Big,
    Call,
    Const,
    Interval,
    Matrix,
    Measured,
    Mul,
    Node,
    Num,
    Pow,
    Relation,
    Seq,
    SetOp,
    Special,
    Sym,
    Text,
    is_scalar,
    negated,
    node_count,
    replaced,
    walk,
)
from verifiers.quantities.units import DEGREE, NO_UNIT, PERCENT, Unit
from verifiers.quantities.written import Quantity

CHEAP_NODES = 160


def unwrapped(node: Node) -> Node:
    """Returns the node without brackets around a single item."""
    while isinstance(node, Seq) and len(node.items) == 1 and node.kind in ("list", "tuple", "bracket"):
        node = node.items[0]
    return node


def is_value(node: Node) -> bool:
    """Whether the node is one value; it may contain angles and percentages."""
    return is_scalar(node) or (isinstance(node, Measured) and is_value(node.value)) or _measured_inside(node)


def _measured_inside(node: Node) -> bool:
    if isinstance(node, Measured):
        return node.unit in (DEGREE, PERCENT) and _measured_inside(node.value)
    if isinstance(node, (Add, Mul, Call, Apply)):
        return all(map(_measured_inside, node.args))
    if isinstance(node, Pow):
        return _measured_inside(node.base) and _measured_inside(node.exponent)
    return is_scalar(node)


def is_heavy(a: Node, b: Node) -> bool:
    """Whether an evaluation may take long enough to belong in a worker."""
    sums = max(sum(isinstance(part, Big) for part in walk(side)) for side in (a, b))
    return sums > 1 or node_count(a) + node_count(b) > CHEAP_NODES


def is_known(node: Node) -> bool:
    """Whether the node is of a kind that is compared as mathematics."""
    return is_value(node) or isinstance(node, (Seq, Interval, SetOp, Matrix, Relation))


def infinity_of(node: Node) -> int:
    """Returns which infinity the node is: 1, -1, or 0 for none."""
    if node == Const("oo"):
        return 1
    return -1 if node == negated(Const("oo")) else 0


def is_approximate(node: Node) -> bool:
    """Whether the node states an approximation."""
    return isinstance(node, Relation) and "~" in node.ops


def sides_of(node: Node) -> tuple[Node, Node]:
    """Returns the part before the first ``~`` and the part right behind it."""
    assert isinstance(node, Relation)
    cut = node.ops.index("~")
    left = node.args[0] if cut == 0 else Relation(node.ops[:cut], node.args[: cut + 1])
    return left, node.args[cut + 1]


def has_signs(node: Node) -> bool:
    """Whether coupled signs occur in the node."""
    return any(isinstance(part, Const) and part.name in ("pm", "mp") for part in walk(node))


def has_relations(node: Node) -> bool:
    """Whether the node is a relation or a list with one."""
    return isinstance(node, Relation) or (
        isinstance(node, Seq) and node.kind == "list" and any(isinstance(item, Relation) for item in node.items)
    )


def is_inequality(node: Node) -> bool:
    """Whether the node is a chain of inequalities."""
    return isinstance(node, Relation) and all(op in ("<", "<=", ">", ">=", "!=") for op in node.ops)


def are_inequalities(node: Node) -> bool:
    """Whether the node is an inequality or a list of them."""
    return is_inequality(node) or (isinstance(node, Seq) and bool(node.items) and all(map(is_inequality, node.items)))


def is_set_like(node: Node) -> bool:
    """Whether the node can only be a set."""
    return isinstance(node, (Interval, SetOp)) or (
        isinstance(node, Const) and node.name in ("R", "Z", "N", "Q", "C", "empty")
    )


def unit_of(node: Node) -> tuple[Node, Unit]:
    """Splits a node into its value and its unit."""
    return (node.value, node.unit) if isinstance(node, Measured) else (node, NO_UNIT)


def rescaled(node: Node, factor: Fraction) -> Node:
    """Multiplies the node by a factor; a decimal keeps its precision."""
    if isinstance(node, Num):
        decimals = node.decimals
        scaled = Fraction(node.value) * factor
        if decimals is not None and factor == Fraction(1, 100):
            decimals += 2
        return Num(scaled.numerator if scaled.denominator == 1 else scaled, decimals, node.digits)
    return Mul((Num(factor), node))


def letter_of(node: Node) -> str | None:
    """Returns the letter of an option, if the node is one."""
    if isinstance(node, Sym) and re.fullmatch("[A-Z]", node.name):
        return node.name
    if isinstance(node, Text):
        match = re.fullmatch(r"\(?([A-Z])\)?\.?", node.words)
        return match.group(1) if match else None
    return None


def spoken(node: Text) -> str:
    """Returns the words without case, punctuation and a leading article."""
    words = " ".join(re.sub(r"[^\w\s]", " ", node.words).lower().split())
    return re.sub(r"^(?:an?|the) (?=\w{3})", "", words)


_NUMBERS = re.compile(
    r"(?:the )?(?:set of )?(?:all |any |every )?(?:the )?(real|integer|natural|rational|complex)s?"
    r"(?: numbers?| values?| x)?"
)
_NOTHING = re.compile(r"(?:there (?:is|are) )?no (?:real )?solutions?(?: exists?)?|none|(?:the )?empty set")


def named_set(node: Text) -> Const | None:
    """Returns the set of numbers that words name: "all real numbers"; None for other words."""
    match = _NUMBERS.fullmatch(spoken(node))
    if match is None or not re.search(r"\s|s$", match.group()):
        return None
    return Const({"integer": "Z"}.get(match.group(1), match.group(1)[0].upper()))


def is_nothing(node: Text) -> bool:
    """Whether words say that there is no solution."""
    return _NOTHING.fullmatch(spoken(node)) is not None


def quantity_of(node: Node) -> Quantity | None:
    """Returns the node as a written quantity, if it is one."""
    if isinstance(node, Special):
        return node.quantity
    value, unit = unit_of(node)
    if isinstance(value, Num):
        return Quantity(value.value, str(value.value), value.decimals, value.digits, unit)
    return None


def expanded(node: Node) -> Node:
    """Writes out coupled signs: the result has one list item for each choice of sign."""
    if not has_signs(node):
        return node
    if isinstance(node, Seq):
        items: list[Node] = []
        for item in node.items:
            both = expanded(item)
            items.extend(both.items if isinstance(both, Seq) and has_signs(item) else (both,))
        return Seq(node.kind, tuple(items), node.joint)
    if isinstance(node, Relation) and is_assignment(node):
        right = expanded(node.args[-1])
        values = right.items if isinstance(right, Seq) and right.kind == "list" else (right,)
        return Seq("list", tuple(Relation(("=",), (node.args[0], value)) for value in values), "or")
    plus = replaced(replaced(node, Const("pm"), Num(1)), Const("mp"), Num(-1))
    minus = replaced(replaced(node, Const("pm"), Num(-1)), Const("mp"), Num(1))
    return Seq("list", (plus, minus), "or")


def flattened(node: Seq) -> tuple[Node, ...]:
    """Returns the items, including the items of inner lists without brackets."""
    items: list[Node] = []
    for item in node.items:
        if isinstance(item, Seq) and item.kind == "list":
            items.extend(item.items)
        else:
            items.append(item)
    return tuple(items)


def with_shared_precision(items: Sequence[Node]) -> tuple[Node, ...]:
    """Gives neighbouring decimals the same precision: 0.29 next to 0.196 is 0.290."""
    given = [item.decimals for item in items if isinstance(item, Num) and item.decimals is not None]
    if not given:
        return tuple(items)
    most = max(given)
    return tuple(
        Num(item.value, most, item.digits + most - item.decimals)
        if isinstance(item, Num) and item.decimals is not None
        else item
        for item in items
    )


def rows_of(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    """Returns the rows of a matrix, of a list of tuples, or of a single row."""
    if isinstance(node, Matrix):
        return node.rows
    if isinstance(node, Seq) and node.kind in ("tuple", "bracket", "list") and node.items:
        inner = [item.items for item in node.items if isinstance(item, Seq) and item.kind in ("tuple", "bracket")]
        if len(inner) == len(node.items) and len({len(row) for row in inner}) == 1:
            return tuple(inner)
        return (node.items,)
    return None


def as_column(rows: tuple[tuple[Node, ...], ...]) -> tuple[tuple[Node, ...], ...]:
    """Turns a single row into a column."""
    if len(rows) == 1:
        return tuple((cell,) for cell in rows[0])
    return rows

r"""Defines the typed tree that the parser builds from an answer.

In: nothing. Out: immutable node classes and a printer. Subtraction is an ``Add`` with a factor -1. Division is a power
-1. So each expression has only one form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from verifiers.quantities.units import Unit
from verifiers.quantities.written import Quantity


@dataclass(frozen=True, slots=True)
class Num:
    """A rational number. ``decimals``: digits after the point as written (None: exact); ``digits``: significant."""

    value: int | Fraction
    decimals: int | None = field(default=None, compare=False)
    digits: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Const:
    """``pi``, ``e``, ``i``, ``oo``; the coupled signs ``pm`` and ``mp``; the sets ``R``, ``Z``, ``N``, ``Q``, ``C``."""

    name: str


@dataclass(frozen=True, slots=True)
class Sym:
    """A free symbol."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    """A sum."""

    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mul:
    """A product. ``spelled``: its letters, if it was written with letters only (``cat``, ``HHT``, ``ab``)."""

    args: tuple[Node, ...]
    spelled: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Pow:
    """A power. ``real_root``: it was written as an odd root, so the root of a negative number is the real root."""

    base: Node
    exponent: Node
    real_root: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A known function: ``sin``, ``log`` (of argument, base), ``abs``, ``factorial``, ``binomial``, …."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """An unknown function ``f(x)`` or an indexed name ``x_{1}`` (whose name ends in ``_``)."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Big:
    """A ``sum`` or ``product`` over an index from ``low`` to ``high``, both included."""

    kind: str
    index: str
    low: Node
    high: Node
    body: Node


@dataclass(frozen=True, slots=True)
class Seq:
    """Several answers. ``kind``: ``list`` (no brackets), ``tuple``, ``bracket``, ``set``; ``joint``: ``,``, and, or.

    Also ``parts`` (labelled (a), (b), …), ``family`` (a value, then what its letters run over), ``cases`` of ``case``
    (a value and its condition), ``ratio`` (of its items and one).
    """

    kind: str
    items: tuple[Node, ...]
    joint: str = ","


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that cannot be mistaken for anything else, for example a half-open one."""

    low: Node
    high: Node
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class SetOp:
    """``cup``, ``cap`` or ``setminus`` of sets."""

    op: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix by rows."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain ``args[0] ops[0] args[1] ops[1] …`` with ops among ``= < <= > >= != in ~``."""

    ops: tuple[str, ...]
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    words: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with a unit."""

    value: Node
    unit: Unit


@dataclass(frozen=True, slots=True)
class Special:
    """A time, ratio, date or numeral with a base, in the form that the exact layer reads."""

    quantity: Quantity


Node = (
    Num
    | Const
    | Sym
    | Add
    | Mul
    | Pow
    | Call
    | Apply
    | Big
    | Seq
    | Interval
    | SetOp
    | Matrix
    | Relation
    | Text
    | Measured
    | Special
)

ZERO, ONE, TWO, MINUS_ONE, HALF = Num(0), Num(1), Num(2), Num(-1), Num(Fraction(1, 2))
IMAGINARY, INFINITY = Const("i"), Const("oo")
SCALARS = (Num, Const, Sym, Add, Mul, Pow, Call, Apply, Big)


def negated(node: Node) -> Node:
    """Returns minus the node."""
    if isinstance(node, Num):
        return Num(-node.value, node.decimals, node.digits)
    if isinstance(node, Measured):
        return Measured(negated(node.value), node.unit)
    return Mul((MINUS_ONE, node))


def reciprocal(node: Node) -> Node:
    """Returns one over the node."""
    return Pow(node, MINUS_ONE)


def children(node: Node) -> tuple[Node, ...]:
    """Returns the nodes directly below a node."""
    if isinstance(node, (Add, Mul, Call, Apply, SetOp, Relation)):
        return node.args
    if isinstance(node, Pow):
        return (node.base, node.exponent)
    if isinstance(node, Seq):
        return node.items
    if isinstance(node, Interval):
        return (node.low, node.high)
    if isinstance(node, Matrix):
        return tuple(cell for row in node.rows for cell in row)
    if isinstance(node, Measured):
        return (node.value,)
    if isinstance(node, Big):
        return (node.low, node.high, node.body)
    return ()


def rebuilt(node: Node, below: tuple[Node, ...]) -> Node:
    """Returns the node with other children, in the order of :func:`children`."""
    if isinstance(node, Add):
        return Add(below)
    if isinstance(node, Mul):
        return Mul(below)
    if isinstance(node, Pow):
        return Pow(below[0], below[1], node.real_root)
    if isinstance(node, Call):
        return Call(node.name, below)
    if isinstance(node, Apply):
        return Apply(node.name, below)
    if isinstance(node, Seq):
        return Seq(node.kind, below, node.joint)
    if isinstance(node, Interval):
        return Interval(below[0], below[1], node.low_closed, node.high_closed)
    if isinstance(node, SetOp):
        return SetOp(node.op, below)
    if isinstance(node, Relation):
        return Relation(node.ops, below)
    if isinstance(node, Matrix):
        width = len(node.rows[0])
        return Matrix(tuple(below[i : i + width] for i in range(0, len(below), width)))
    if isinstance(node, Measured):
        return Measured(below[0], node.unit)
    if isinstance(node, Big):
        return Big(node.kind, node.index, *below)
    return node


def replaced(node: Node, old: Node, new: Node) -> Node:
    """Returns the tree with every occurrence of ``old`` replaced; a bound index stays unchanged."""
    if node == old:
        return new
    if isinstance(node, Big) and isinstance(old, Sym) and old.name == node.index:
        return node
    below = children(node)
    if not below:
        return node
    after = tuple(replaced(child, old, new) for child in below)
    return node if after == below else rebuilt(node, after)


def walk(node: Node) -> Iterator[Node]:
    """Yields the node and every node below it."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(children(top))


def symbols(node: Node, bound: frozenset[str] = frozenset()) -> frozenset[str]:
    """Returns the names of the free symbols."""
    if isinstance(node, Sym):
        return frozenset() if node.name in bound else frozenset((node.name,))
    if isinstance(node, Big):
        inner = symbols(node.body, bound | {node.index})
        return inner | symbols(node.low, bound) | symbols(node.high, bound)
    found: frozenset[str] = frozenset()
    for child in children(node):
        found |= symbols(child, bound)
    return found


def is_scalar(node: Node) -> bool:
    """Whether the node is one number or expression throughout."""
    return isinstance(node, SCALARS) and all(is_scalar(child) for child in children(node))


def show(node: Node) -> str:
    """Returns a compact canonical spelling of the tree."""
    if isinstance(node, Num):
        return str(node.value)
    if isinstance(node, (Const, Sym)):
        return node.name
    if isinstance(node, Text):
        return f'"{node.words}"'
    if isinstance(node, Special):
        return node.quantity.text
    if isinstance(node, Measured):
        return f"{show(node.value)} {node.unit.name}".strip()
    if isinstance(node, Add):
        return "(" + " + ".join(map(show, node.args)) + ")"
    if isinstance(node, Mul):
        return "*".join(map(show, node.args))
    if isinstance(node, Pow):
        return (
            f"{show(node.base)}^{show(node.exponent)}"
            if isinstance(node.exponent, Num)
            else f"{show(node.base)}^({show(node.exponent)})"
        )
    if isinstance(node, (Call, Apply)):
        return f"{node.name}({', '.join(map(show, node.args))})"
    if isinstance(node, Big):
        return f"{node.kind}({show(node.body)}, {node.index}={show(node.low)}..{show(node.high)})"
    if isinstance(node, Seq):
        brackets = {"list": "", "bracket": "[]", "set": "{}", "family": "{}", "cases": "{}", "ratio": "::"}.get(
            node.kind, "()"
        )
        return brackets[:1] + ", ".join(map(show, node.items)) + brackets[1:]
    if isinstance(node, Interval):
        return f"{'[' if node.low_closed else '('}{show(node.low)}, {show(node.high)}{']' if node.high_closed else ')'}"
    if isinstance(node, SetOp):
        return f" {node.op} ".join(map(show, node.args))
    if isinstance(node, Matrix):
        return "[" + "; ".join(", ".join(map(show, row)) for row in node.rows) + "]"
    assert isinstance(node, Relation)
    parts = [show(node.args[0])]
    for op, arg in zip(node.ops, node.args[1:], strict=True):
        parts += [op, show(arg)]
    return " ".join(parts)


def node_count(node: Node) -> int:
    """Counts the nodes in the tree."""
    return sum(1 for _ in walk(node))

r"""Reduces chains of equations: ``p+q = 5+6 = 11`` states its last member, if the chain is true.

In: a tree, and a function that compares two values. Out: the tree, with each chain reduced to what it states, or None
for a chain that contradicts itself.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

from verifiers.compare.kinds import has_signs, is_value
from verifiers.compare.names import is_name
from verifiers.compare.numeric import real_value
from verifiers.parse.tree import (
    ZERO,
    Add,
    Apply,
    Call,
    Const,
    Measured,
    Mul,
    Node,
    Num,
    Pow,
    Relation,
    Seq,
    Sym,
    is_scalar,
    symbols,
    walk,
)

Agree = Callable[[Node, Node], bool]


def is_chain(node: Node) -> bool:
    """Whether the node is a chain of equations, or a list that holds one."""
    if isinstance(node, Seq) and node.kind == "list":
        return any(isinstance(item, Relation) and is_chain(item) for item in node.items)
    if not isinstance(node, Relation) or any(op != "=" for op in node.ops):
        return False
    return len(node.args) > 2 or all(map(_is_constant, node.args))


def stated(node: Node, agree: Agree) -> Node | None:
    """Returns what a chain states: its last member, under the name that begins the chain, if any; None if false."""
    if isinstance(node, Seq):
        parts = [stated(item, agree) if is_chain(item) else item for item in node.items]
        kept = tuple(part for part in parts if part is not None)
        return Seq(node.kind, kept, node.joint) if len(kept) == len(parts) else None
    if not isinstance(node, Relation):
        return node
    members = node.args if not is_name(node.args[-1]) or is_name(node.args[0]) else tuple(reversed(node.args))
    if has_signs(node):
        return Relation(("=",), (members[0], members[-1])) if is_name(members[0]) else node
    constants = [member for member in members if _is_constant(member)]
    rounded = _rounded(constants, agree)
    if rounded is None:
        return None
    if not _is_constant(members[-1]):
        return _defined(members, node, agree)
    last: Node = constants[-1] if not rounded else Relation(("~",), (constants[-2], constants[-1]))
    if len(constants) == len(members):
        return last
    if all(isinstance(member, Sym) for member in members[:-1]) and len(members) > 2:
        return Seq("list", tuple(Relation(("=",), (member, last)) for member in members[:-1]))
    if rounded:
        return Relation(("=", "~"), (members[0], constants[-2], constants[-1]))
    return Relation(("=",), (members[0], last))


def _defined(members: tuple[Node, ...], node: Relation, agree: Agree) -> Node | None:
    """``f(x) = (x+1)^2 = x^2+2x+1``; symmetric equations like ``x-1 = y/2 = z`` stay as they are."""
    first, last = members[0], members[-1]
    recursive = first in set(walk(last)) if isinstance(first, Apply) else bool(symbols(first) & symbols(last))
    if not is_name(first) or isinstance(last, Sym) or not is_scalar(last) or recursive:
        return node
    if any(is_scalar(member) and not is_name(member) and not agree(member, last) for member in members[1:-1]):
        return None
    return Relation(("=",), (first, last))


def _rounded(constants: list[Node], agree: Agree) -> bool | None:
    """Whether the last of several equal values is a rounded one; None if two of them differ."""
    for before, after in pairwise(constants[:-1]):
        if not agree(before, after):
            return None
    if len(constants) < 2 or agree(constants[-2], constants[-1]):
        return False
    value = real_value(constants[-2]) if is_scalar(constants[-2]) else None
    last = constants[-1]
    if value is None or not isinstance(last, Num) or last.decimals is None or last.digits < 2:
        return None
    return True if abs(value - last.value) * 2 <= Fraction(1, 10**last.decimals) else None


def _is_constant(node: Node) -> bool:
    if isinstance(node, Measured):
        return _is_constant(node.value)
    if isinstance(node, Seq) and node.kind in ("tuple", "bracket", "set"):
        return all(map(_is_constant, node.items))
    return is_value(node) and not symbols(node) and not any(isinstance(part, Apply) for part in walk(node))


def is_stated_quantity(node: Relation) -> bool:
    """Whether an equation states the value of a quantity that a problem may ask for: ``p+q = 11``; not ``2x = 10``."""
    if node.ops != ("=",):
        return False
    left, right = node.args
    return is_quantity_name(left) and not symbols(right) and right != ZERO


def is_quantity_name(node: Node) -> bool:
    r"""Whether a problem may ask for this left side: ``p+q``, ``100m+n``, ``a^2+b^2``, ``\sin A``; not ``2x``."""
    if is_name(node):
        return True
    if isinstance(node, Call) and node.name == "abs":
        return is_quantity_name(node.args[0])
    if isinstance(node, Call) and node.name in ("sin", "cos", "tan") and node.args != (Sym("x"),):
        return is_name(node.args[0])
    if not isinstance(node, (Add, Mul, Pow)) or len(symbols(node)) < 2:
        return False
    numbers = [part for part in walk(node) if isinstance(part, Num)]
    exponents = [part.exponent for part in walk(node) if isinstance(part, Pow)]
    plain = all(number.value in (-1, 1, 10, 100, 1000) for number in numbers if number not in exponents)
    return plain and not any(isinstance(part, (Call, Const)) for part in walk(node))

"""Decides when a left side only names the answer on the right, as in an assignment.

In: relations. Out: names, values, and whether two names are the same.
"""

from __future__ import annotations

from verifiers.compare.spelling import segment_of
from verifiers.parse.tree import (
    Apply,
    Call,
    Measured,
    Mul,
    Node,
    Num,
    Pow,
    Relation,
    Seq,
    Special,
    Sym,
    Text,
    is_scalar,
    replaced,
    symbols,
    walk,
)


def is_name(node: Node) -> bool:
    """Whether a left side is only a name for the answer: ``x``, ``f(x)``, ``|AB|``, ``NO/BO``, ``(x, y)``."""
    if isinstance(node, (Sym, Text)):
        return True
    if isinstance(node, Apply):
        return True
    if isinstance(node, Seq):
        return all(map(is_name, node.items))
    if isinstance(node, Mul):
        return all(
            is_name(arg) or (isinstance(arg, Pow) and arg.exponent == Num(-1) and is_name(arg.base)) or arg == Num(1)
            for arg in node.args
        )
    if isinstance(node, Call) and node.name == "abs":
        return is_name(node.args[0])
    return False


def is_assignment(node: Relation) -> bool:
    """Whether the relation only names its right side, or says in which set it lies."""
    if node.ops == ("in",):
        return is_name(node.args[0])
    if not all(op == "=" for op in node.ops) or not is_name(node.args[0]):
        return False
    left, right = node.args[0], node.args[-1]
    if isinstance(left, Mul) and symbols(right):
        return False
    if isinstance(left, Apply):
        return left not in set(walk(right))
    return not (symbols(left) & symbols(right))


def oriented(node: Relation) -> Relation:
    """Turns ``5 = x`` into ``x = 5``."""
    if node.ops == ("=",) and not is_name(node.args[0]) and isinstance(node.args[1], (Sym, Apply)):
        return Relation(node.ops, (node.args[1], node.args[0]))
    return node


def names_the_same(a: Node, b: Node) -> bool:
    """Whether two left sides name the same thing: ``f(x)`` and ``y``, ``W(n)`` and ``W(x)``, ``AB`` and ``|BA|``."""
    if segment_of(a) and segment_of(a) == segment_of(b):
        return True
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Sym) and isinstance(other, Apply) and one.name == other.name in ("f", "g", "h"):
            return True
    function_a = isinstance(a, Apply) and not a.name.endswith("_")
    function_b = isinstance(b, Apply) and not b.name.endswith("_")
    if isinstance(a, Apply) and isinstance(b, Apply):
        return (
            a.name == b.name and function_a and function_b and all(isinstance(arg, Sym) for arg in (*a.args, *b.args))
        )
    return (function_a and b == Sym("y")) or (function_b and a == Sym("y"))


def with_names_of(left: Node, right: Node, value: Node) -> Node:
    """Replaces the argument names of ``right`` in ``value`` with the argument names of ``left``."""
    if isinstance(left, Apply) and isinstance(right, Apply) and len(left.args) == len(right.args):
        for new, old in zip(left.args, right.args, strict=True):
            if isinstance(old, Sym) and isinstance(new, Sym) and old != new:
                value = replaced(value, old, new)
    return value


def assignments_of(node: Seq) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """Returns (names, values) of a list of assignments; a bare value continues the assignment before it."""
    names: list[Node] = []
    values: list[Node] = []
    for item in node.items:
        if isinstance(item, Relation):
            item = oriented(item)
            if not (is_assignment(item) and item.ops[0] == "="):
                return None
            names.append(item.args[0])
            values.append(item.args[-1])
        elif isinstance(item, Measured) or is_scalar(item) or isinstance(item, (Seq, Special)):
            names.append(names[-1] if names else Sym(""))
            values.append(item)
        else:
            return None
    return tuple(names), tuple(values)

r"""Compares families of values over a letter, like ``\frac{\pi}{4} + k\pi``; the name of the letter does not matter.

In: two trees with the ranges of their letters. Out: the second tree with the letters of the first, and whether two
families over the integers are the same values (``-\frac{\pi}{4} + k\pi`` and ``\frac{3\pi}{4} + n\pi``).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations

from verifiers.compare.canonical import canonical, same
from verifiers.compare.polynomials import Unable, Undefined
from verifiers.compare.qualifiers import Qualified
from verifiers.parse.tree import (
    Add,
    Apply,
    Const,
    Measured,
    Mul,
    Node,
    Num,
    Relation,
    Seq,
    Sym,
    is_scalar,
    negated,
    reciprocal,
    replaced,
    symbols,
    walk,
)
from verifiers.quantities.units import DEGREE

MAX_FAMILIES = 8
MAX_CONSTANTS = 3
_VARIABLES = frozenset("xyztn")
_LETTERS = frozenset("kmnlpqrstcabCKAB")
_PARAMETERS = frozenset("kmnl")
_SAME_DOMAIN = {"N": "Z+", "N*": "Z+", "N+": "Z+"}


def implied_parameter(node: Node) -> str | None:
    r"""Returns the letter of a family written without its qualifier: the ``k`` of ``\frac{\pi}{4} + k\pi``."""
    if not isinstance(node, (Add, Mul, Measured, Relation, Seq)):
        return None
    names = frozenset().union(*(symbols(item) for item in values_of(node)))
    if len(names) != 1 or not names <= _PARAMETERS:
        return None
    angle = any(part == Const("pi") or (isinstance(part, Measured) and part.unit is DEGREE) for part in walk(node))
    return next(iter(names)) if angle else None


def renamed(x: Qualified, y: Qualified) -> Node | None:
    """Returns the body of ``y`` with the letter names of ``x``; None if the letters run over different numbers."""
    if any(not _compatible(x.domains[name], y.domains.get(name)) for name in x.domains if name in symbols(y.body)):
        return None
    left, right = symbols(x.body) - symbols(y.body), symbols(y.body) - symbols(x.body)
    if len(left) != len(right) or not left or len(left) > 3:
        return y.body
    if (
        isinstance(x.body, Sym)
        or isinstance(y.body, Sym)
        or (left & _arguments(x.body))
        or (right & _arguments(y.body))
    ):
        return y.body
    old, new = _in_order(right, y), _in_order(left, x)
    declared = all(name in x.domains for name in left) or all(name in y.domains for name in right)
    usual = all(name in _LETTERS or name in side.domains for names, side in ((left, x), (right, y)) for name in names)
    implied = implied_parameter(x.body) is not None and implied_parameter(y.body) is not None
    if not usual or not (declared or implied) or (len(left) > 1 and not (x.domains and y.domains)):
        return y.body
    body: Node = y.body
    for before, after in zip(old, new, strict=True):
        if not _compatible(x.domains.get(after), y.domains.get(before)):
            return None
        body = replaced(body, Sym(before), Sym(after))
    return body


def _arguments(node: Node) -> frozenset[str]:
    """Returns the letters that a function is defined on: ``x`` in ``f(x) = cx``."""
    defined = [part.args[0] for part in walk(node) if isinstance(part, Relation)]
    return frozenset().union(*(symbols(left) for left in defined if isinstance(left, Apply)))


def _in_order(names: frozenset[str], side: Qualified) -> list[str]:
    return [*(name for name in side.domains if name in names), *sorted(names - set(side.domains))]


def _compatible(a: str | None, b: str | None) -> bool:
    if a is None or b is None or "any" in (a, b):
        return True
    return _SAME_DOMAIN.get(a, a) == _SAME_DOMAIN.get(b, b) or {a, b} in ({"N", "Z0"}, {"N", "N0"})


def with_other_constants(a: Node, b: Node) -> Iterator[Node]:
    """Renames the constants that only ``b`` has to the constants that only ``a`` has, in every order."""
    left, right = _constants(a), _constants(b)
    new, old = [node for node in left if node not in right], [node for node in right if node not in left]
    if len(new) != len(old) or not 1 <= len(new) <= MAX_CONSTANTS:
        return
    marks = [Sym(f"\0{index}") for index in range(len(old))]
    for order in permutations(new):
        body = b
        for before, mark in zip(old, marks, strict=True):
            body = replaced(body, before, mark)
        for mark, after in zip(marks, order, strict=True):
            body = replaced(body, mark, after)
        yield body


def _constants(node: Node) -> list[Node]:
    """The letters and indexed letters that may be constants, each once."""
    found = [part for part in walk(node) if isinstance(part, Sym) and part.name not in _VARIABLES]
    indexed = [part for part in walk(node) if isinstance(part, Apply) and part.name.endswith("_") and not symbols(part)]
    return list(dict.fromkeys([*found, *indexed]))


def values_of(node: Node) -> tuple[Node, ...]:
    """Returns the values of a family: every item of a list, or the right side of an assignment."""
    if isinstance(node, Seq) and node.kind in ("list", "set"):
        return tuple(value for item in node.items for value in values_of(item))
    if isinstance(node, Relation) and node.ops == ("=",) and isinstance(node.args[0], Sym):
        return (node.args[1],)
    return (node,)


def same_progressions(x: Node, y: Node, name: str) -> bool:
    """Whether two lists of values that are linear in ``name`` are the same for all integers."""
    left, right = values_of(x), list(values_of(y))
    if len(left) != len(right) or len(left) > MAX_FAMILIES:
        return False
    try:
        for p in left:
            found = next((q for q in right if _same_progression(p, q, name)), None)
            if found is None:
                return False
            right.remove(found)
    except (Unable, Undefined):
        return False
    return True


def _same_progression(p: Node, q: Node, name: str) -> bool:
    if isinstance(p, Measured) and isinstance(q, Measured) and p.unit == q.unit:
        p, q = p.value, q.value
    first, second = _line(p, name), _line(q, name)
    if first is None or second is None:
        return False
    (start, step), (other, other_step) = first, second
    ratios = [_ratio(other_step, step), _ratio(Add((other, negated(start))), step)]
    return ratios[0] in (1, -1) and ratios[1] is not None and ratios[1].denominator == 1


def _line(node: Node, name: str) -> tuple[Node, Node] | None:
    """Returns (value at 0, step) of a family that is linear in its letter."""
    if not is_scalar(node) and not isinstance(node, (Add, Mul)):
        return None
    start, after = (replaced(node, Sym(name), Num(value)) for value in (0, 1))
    step = Add((after, negated(start)))
    linear = same(node, Add((start, Mul((step, Sym(name)))))) is True
    return (start, step) if linear and same(step, Num(0)) is False else None


def _ratio(a: Node, b: Node) -> Fraction | None:
    return canonical(Mul((a, reciprocal(b)))).rational()

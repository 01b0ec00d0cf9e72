r"""Reads sums of unit vectors, ``2\hat{i} - 3\hat{j}`` or ``2i - 3j``, as the tuple of their components.

In: a scalar tree. Out: its components along i, j and k.
"""

from __future__ import annotations

from verifiers.compare.canonical import same
from verifiers.compare.polynomials import Undefined
from verifiers.parse.tree import IMAGINARY, ZERO, Add, Matrix, Mul, Node, Num, Seq, Sym, is_scalar, replaced, walk

UNITS = (Sym("hat i"), Sym("hat j"), Sym("hat k"))
_PLAIN = ((IMAGINARY, UNITS[0]), (Sym("j"), UNITS[1]), (Sym("k"), UNITS[2]))


def is_marked(node: Node) -> bool:
    r"""Whether a unit vector is written as one in the node: ``\hat{i}``, ``\vec{j}``, ``\mathbf{k}``."""
    return any(isinstance(part, Sym) and part.name.startswith("hat ") and part in UNITS for part in walk(node))


def size_of(node: Node) -> int:
    """Returns the number of components of a tuple or column of two or three; 0 for everything else."""
    if isinstance(node, Seq) and node.kind in ("tuple", "bracket"):
        size = len(node.items)
    elif isinstance(node, Matrix):
        size = len(node.rows) * len(node.rows[0]) if 1 in (len(node.rows), len(node.rows[0])) else 0
    else:
        size = 0
    return size if size in (2, 3) else 0


def components(node: Node, size: int = 3) -> Seq | None:
    """Returns the first ``size`` components of a sum of multiples of unit vectors, or None for any other node."""
    if not is_scalar(node):
        return None
    if not is_marked(node):
        if not any(part == Sym("j") for part in walk(node)):
            return None
        for plain, unit in _PLAIN:
            node = replaced(node, plain, unit)
    parts = [_along(node, unit) for unit in UNITS]
    terms = tuple(Mul((part, unit)) for part, unit in zip(parts, UNITS, strict=True))
    try:
        linear = same(node, Add(terms)) is True
        flat = all(same(part, ZERO) is True for part in parts[size:])
    except Undefined:
        return None
    return Seq("tuple", tuple(parts[:size])) if linear and flat else None


def _along(node: Node, unit: Node) -> Node:
    for other in UNITS:
        node = replaced(node, other, Num(int(other == unit)))
    return node

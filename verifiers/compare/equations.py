r"""Finds equations and inequalities that differ only by a constant factor.

In: two relations of two sides each, with the same sign. Out: whether one is a multiple of the other, or None if exact
arithmetic cannot tell.
"""

from __future__ import annotations

from verifiers.compare.canonical import canonical
from verifiers.compare.polynomials import Unable
from verifiers.parse.tree import Add, Relation, negated


def multiples(a: Relation, b: Relation) -> tuple[bool, str] | None:
    """Returns (whether ``a`` and ``b`` agree up to a constant factor, why), or None without a canonical form."""
    x, y = (Add((side.args[0], negated(side.args[1]))) for side in (a, b))
    try:
        p, q = canonical(x).numerator, canonical(y).numerator
    except Unable:
        return None
    if not p or not q:
        return not p and not q, "an identity"
    lead = next(iter(p))
    if lead not in q or len(p) != len(q):
        return False, "different relations"
    ratio = q[lead] / p[lead]
    if any(q.get(monomial) != ratio * coefficient for monomial, coefficient in p.items()):
        return False, "different relations"
    if ratio < 0 and a.ops[0] not in ("=", "!="):
        return False, "the opposite relation"
    return True, "the same relation"

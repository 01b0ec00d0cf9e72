r"""Splits a tree into its body and its qualifiers ``k \in \mathbb{Z}``, which give the values of a letter."""

from __future__ import annotations

from typing import NamedTuple

from verifiers.compare.kinds import is_inequality
from verifiers.parse.tree import Const, Node, Relation, Seq, Sym, symbols

_NUMBER_SETS = frozenset("RZNQC")


class Qualified(NamedTuple):
    """A tree in two parts: its body, and the ranges of its letters.

    ``body``: the tree without its qualifiers. ``domains``: maps the name of a letter to the name of its range.
    """

    body: Node
    domains: dict[str, str]


def qualified(node: Node) -> Qualified:
    """Returns the body of a tree, and the ranges of its letters."""
    if not isinstance(node, Seq) or node.kind not in ("list", "family") or len(node.items) < 2:
        return Qualified(node, {})
    kept = [item for item in node.items if _membership_of(item) is None]
    domains = [found for item in node.items if (found := _membership_of(item)) is not None]
    if not kept or not domains or _restricts(kept, domains):
        return Qualified(node, {})
    if any(name not in symbols(Seq("list", tuple(kept))) for name, _ in domains):
        return Qualified(node, {})
    body = kept[0] if len(kept) == 1 else Seq(node.kind, tuple(kept), node.joint)
    return Qualified(body, dict(domains))


def _membership_of(node: Node) -> tuple[str, str] | None:
    if not isinstance(node, Relation) or node.ops != ("in",):
        return None
    left, right = node.args
    known = isinstance(right, Const) and (right.name[0] in _NUMBER_SETS or right.name == "any")
    return (left.name, right.name) if isinstance(left, Sym) and known and isinstance(right, Const) else None


def _restricts(kept: list[Node], domains: list[tuple[str, str]]) -> bool:
    """Whether a qualifier picks some of the solutions, as in ``x > 2, x \\in Z``, and so belongs to the answer."""
    asked = frozenset().union(*(symbols(item) for item in kept if is_inequality(item)))
    return any(name in asked and domain not in ("R", "any") for name, domain in domains)

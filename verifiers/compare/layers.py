"""Compares two answers layer by layer, from identity to proof; the same code runs in the caller and in a worker.

In: two answers as text, a policy, and a prover or None. Out: a verdict, or :class:`NeedsProof` if there is no prover
and only a proof can decide.
"""

from __future__ import annotations

from verifiers.compare.identity import identity_key
from verifiers.compare.scalars import NeedsProof, Prover
from verifiers.compare.trees import Comparison
from verifiers.compare.units import Decision
from verifiers.limits import MAX_ANSWER, TooLarge, Unparsed
from verifiers.parse.parser import parse
from verifiers.parse.tree import Measured, Node, Num, show
from verifiers.policy import Policy
from verifiers.quantities.commas import with_points
from verifiers.quantities.exact import exact_verdict, quantity
from verifiers.read import conclusion, named_option
from verifiers.text import has_damage
from verifiers.verdict import Verdict


class NeedsFallback(Exception):
    """A side is outside the grammar. The carried verdict stays valid unless a fallback decides otherwise."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


def decide_texts(left: str, right: str, policy: Policy, prover: Prover | None) -> Verdict:
    """Returns the verdict on two texts. Raises :class:`NeedsProof`, :class:`NeedsFallback`, :class:`TooLarge`."""
    left, right = named_option(conclusion(left, reference=True), conclusion(right))
    for side, text in (("reference", left), ("answer", right)):
        if not text:
            return Verdict("unparsed", None, None, None, f"the {side} states no answer")
        if len(text) > MAX_ANSWER:
            if left == right:
                return Verdict("equal", "identity", left, right, "the same text")
            return Verdict("too_large", reason=f"the {side} has {len(text)} characters (at most {MAX_ANSWER})")
        if has_damage(text):
            return Verdict("unparsed", reason=f"the {side} holds control characters")
    if policy.comma == "decimal":
        left, right = with_points(left), with_points(right)
    a_key, b_key = identity_key(left), identity_key(right)
    if a_key == b_key and a_key:
        return Verdict("equal", "identity", a_key, b_key, "the same text")
    a, b = quantity(left), quantity(right)
    if a is not None and b is not None:
        return exact_verdict(a, b, policy)
    readings = []
    for side, text in (("reference", left), ("answer", right)):
        try:
            readings.append(_readings(text, policy))
        except Unparsed as reason:
            shown = show(readings[0][0]) if readings else None
            raise NeedsFallback(Verdict("unparsed", None, shown, None, f"the {side}: {reason}")) from reason
    comparison = Comparison(policy, prover)
    first: Decision | None = None
    pending: NeedsProof | None = None
    for x in readings[0]:
        for y in readings[1]:
            try:
                decision = comparison.decide(x, y)
            except NeedsProof as reason:
                pending = reason
                continue
            except Unparsed as reason:
                return Verdict("unparsed", None, show(x), show(y), str(reason))
            if decision.equal:
                return Verdict("equal", decision.layer, show(x), show(y), decision.reason)
            first = first or decision
    if pending is not None:
        raise pending
    assert first is not None
    forms = (show(readings[0][0]), show(readings[1][0]))
    if first.equal is None:
        return Verdict("timeout" if policy.unproven == "timeout" else "unparsed", None, *forms, first.reason)
    return Verdict("unequal", first.layer, *forms, first.reason)


def _readings(text: str, policy: Policy) -> tuple[Node, ...]:
    """Returns the readings that the policy allows: if a comma is not a decimal mark, without the decimal readings."""
    found = parse(text)
    if policy.comma == "group" and "," in text and len(found) > 1:
        return tuple(node for node in found if not isinstance(node, (Num, Measured))) or found
    return found


__all__ = ["NeedsFallback", "NeedsProof", "TooLarge", "decide_texts"]

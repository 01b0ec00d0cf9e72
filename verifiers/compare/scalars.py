r"""Compares two single values, layer by layer: written numbers, canonical forms, numeric evidence, proof.

In: two expressions without units, a policy, and a prover or None. Out: a :class:`Decision`.
"""

from __future__ import annotations

from collections.abc import Callable

from verifiers.allowance import spend
from verifiers.compare.canonical import canonical_or_none, same
from verifiers.compare.kinds import (
    infinity_of,
    is_heavy,
    is_known,
    is_value,
)
from verifiers.compare.numeric import investigate, real_value
from verifiers.compare.units import Decision
from verifiers.limits import TooLarge
from verifiers.parse.tree import (
    Node,
    Num,
    show,
    symbols,
)
from verifiers.policy import Policy
from verifiers.quantities.exact import same_number
from verifiers.verdict import Layer


class NeedsProof(Exception):
    """Numeric evidence does not refute equality, and no prover was given."""


Prover = Callable[[Node, Node], bool | None]


class ScalarComparison:
    """Compares single values. It holds the policy and the prover that all parts of a comparison share."""

    def __init__(self, policy: Policy, prover: Prover | None) -> None:
        self.policy = policy
        self.prover = prover

    def scalar(self, a: Node, b: Node) -> Decision:
        """Compares two expressions: written numbers, canonical forms, numbers, proof."""
        for side in (a, b):
            if not is_value(side):
                return Decision(
                    False if is_known(a) and is_known(b) else None, "exact", f"{show(side)[:40]} is no single value"
                )
        infinite = [infinity_of(side) for side in (a, b)]
        if any(infinite):
            equal = infinite[0] == infinite[1]
            return Decision(equal, "exact", "both infinite" if equal else "one is infinite")
        if isinstance(a, Num) and isinstance(b, Num):
            equal = same_number(a.value, a.decimals, a.digits, b.value, b.decimals, b.digits, self.policy)
            return Decision(equal, "exact", "the same number" if equal else "different numbers")
        spend(5)
        if self.prover is None and is_heavy(a, b):
            raise NeedsProof("a long expression")
        verdict = same(a, b)
        layer: Layer = "symbolic" if symbols(a) or symbols(b) else "exact"
        if verdict is True:
            return Decision(True, layer, "the same canonical form")
        rounding = self.rounded(a, b)
        if rounding is not None:
            return rounding
        if verdict is False:
            return Decision(False, layer, "different canonical forms")
        finding, reason = investigate(a, b)
        if finding == "different":
            return Decision(False, "numeric", reason)
        if finding == "proven":
            return Decision(True, "numeric", reason)
        if finding == "unknown" and "too large" in reason:
            raise TooLarge(reason)
        if self.prover is None:
            raise NeedsProof(reason)
        proof = self.prover(a, b)
        if proof is not None:
            return Decision(proof, "symbolic", "proved" if proof else "disproved")
        if finding == "agree" and self.policy.unproven == "equal":
            return Decision(True, "numeric", f"{reason}; not proved")
        return Decision(None, "symbolic", f"{reason}; not proved")

    def rounded(self, a: Node, b: Node) -> Decision | None:
        """Compares a decimal with a closed form; returns None if neither side is a decimal."""
        number, other = (a, b) if isinstance(a, Num) else (b, a)
        if not isinstance(number, Num) or number.decimals is None:
            return None
        form = canonical_or_none(other)
        exact = form.rational() if form is not None else None
        value = exact if exact is not None else real_value(other)
        if value is None:
            return Decision(False, "numeric", "a decimal against something that is no real number")
        equal = same_number(number.value, number.decimals, number.digits, value, None, 0, self.policy)
        return Decision(equal, "numeric", "correctly rounded" if equal else "not the value at the digits given")

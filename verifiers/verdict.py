"""The result of a verification: the outcome, the layer that decided, both parsed forms, and a reason in words.

In: nothing. Out: the :class:`Verdict` value that every verifier returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["equal", "unequal", "unparsed", "timeout", "too_large"]
Layer = Literal["identity", "exact", "numeric", "symbolic", "fallback"]

OUTCOMES: tuple[Outcome, ...] = ("equal", "unequal", "unparsed", "timeout", "too_large")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of comparing one answer with one reference. It is truthy if and only if the outcome is ``"equal"``.

    ``outcome``: ``equal``, ``unequal``, or one of three failures. A failure never counts as ``unequal``. ``unparsed``:
    a side is missing, or is not an answer that we can read. ``timeout``: no verdict was reached, because the time limit
    ran out or the worker died (see :attr:`undecided`). ``too_large``: a side is longer, deeper or bigger than the fixed
    bounds, and nothing was evaluated.
    ``layer``: the layer that decided (``identity``, ``exact``, ``numeric``, ``symbolic``, ``fallback``), or None if no
    layer decided. ``reference`` and ``answer``: what was read on each side, in canonical spelling, or None if nothing
    was read. ``reason``: one line in words.
    """

    outcome: Outcome
    layer: Layer | None = None
    reference: str | None = None
    answer: str | None = None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.outcome == "equal"

    @property
    def undecided(self) -> bool:
        """Whether no verdict was reached. This says nothing about the answer, and another call may decide it."""
        return self.outcome == "timeout"

    def flipped(self) -> Verdict:
        """Return the same verdict with the two sides exchanged."""
        return Verdict(self.outcome, self.layer, self.answer, self.reference, self.reason)

"""The result of a verification: an outcome, the layer that decided, both parsed forms, and a reason in words.

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
    """The result of comparing one answer with one reference. Truthy if and only if the outcome is ``"equal"``.

    ``outcome``: ``equal``, ``unequal``, or one of the three failures, which are never folded into ``unequal``:
    ``unparsed`` (a side is missing or is not an answer we can read), ``timeout`` (no verdict was reached: the time
    limit ran out, or the worker died; see :attr:`undecided`), ``too_large`` (a side is longer, deeper or bigger than
    the fixed bounds; nothing was evaluated).
    ``layer``: the layer that decided (``identity``, ``exact``, ``numeric``, ``symbolic``, ``fallback``), or None where
    none did. ``reference`` and ``answer``: what was read on each side, in canonical spelling, or None where nothing
    was. ``reason``: one line in words.
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
        """Whether no verdict was reached: it says nothing about the answer, and asking again may decide it."""
        return self.outcome == "timeout"

    def flipped(self) -> Verdict:
        """The same verdict with the two sides exchanged."""
        return Verdict(self.outcome, self.layer, self.answer, self.reference, self.reason)

"""The step filter: draws one step at a time, and draws it again while the judges doubt it.

A chain grows from the root. Its next step is accepted if C(child) ≥ ratio · C(parent), where C is the belief of the
judges (`base.belief`). Otherwise the step is drawn again from the same node. After `tries` draws the chain continues
with the best of them, so a false alarm never blocks it. When a solution ends, a new chain starts at the root.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mcts_dpo.search.allocation.base import AllocationSettings, Chain, Draw, belief, draws_of
from mcts_dpo.search.allocation.registry import register_allocation

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class FilterSettings(AllocationSettings):
    """Steps are drawn one by one; a step that the judges doubt is drawn again.

    ratio: a step is accepted if the belief after it is at least `ratio` times the belief before it.
    tries: draws of one step before the chain continues with the best of them.
    """

    kind: Literal["filter"] = "filter"
    ratio: float = Field(default=0.6, ge=0.0, le=1.0)
    tries: int = Field(default=6, ge=1)

    needs_judge: ClassVar[bool] = True
    expand: ClassVar[str] = "step"


class Filter:
    """See the module. With `parallel_leaves` > 1, several chains grow side by side."""

    reopens = True

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self._chains: list[Chain] = []

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        return draws_of(self._chains, state, tree, wanted)

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """See `Allocation`."""
        chain: Chain = draw.chain
        chain.out = False
        chain.drawn += ends
        if not ends:
            return
        beliefs = [belief(state, node) for node in chain.drawn]
        before = belief(state, chain.node)
        if beliefs[-1] < self._settings.ratio * before:  # an unknown belief (nan) is no doubt
            if len(chain.drawn) < self._settings.tries:
                return
            best = max(
                range(len(beliefs)), key=lambda place: -math.inf if math.isnan(beliefs[place]) else beliefs[place]
            )
        else:
            best = len(beliefs) - 1
        node = chain.drawn[best]
        chain.restart(tree.search_root if state.forest.terminal[node] else node)


register_allocation(FilterSettings, Filter)

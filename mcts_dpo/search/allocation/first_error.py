"""Draws whole solutions, and draws again from before the first step that the judges doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mcts_dpo.search.allocation.base import AllocationSettings, Chain, Draw, belief, draws_of
from mcts_dpo.search.allocation.registry import register_allocation

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class FirstErrorSettings(AllocationSettings):
    """Whole solutions are drawn; the rest of a solution is drawn again from before the first doubted step.

    threshold: a step is doubted if the judges' belief after it is below this.
    tries:     draws of one solution before a new one starts at the root.
    """

    kind: Literal["first_error"] = "first_error"
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    tries: int = Field(default=6, ge=1)

    needs_judge: ClassVar[bool] = True
    expand: ClassVar[str] = "rollout"


class FirstError:
    """See the module. With `parallel_leaves` > 1, several solutions are in the making."""

    reopens = True

    def __init__(self, settings: FirstErrorSettings) -> None:
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
        path = state.forest.path(ends[0])[1:]
        doubted = next((node for node in path if belief(state, node) < self._settings.threshold), None)
        if doubted is None or len(chain.drawn) >= self._settings.tries:
            chain.restart(tree.search_root)
        else:
            chain.node = int(state.forest.parent[doubted])


register_allocation(FirstErrorSettings, FirstError)

"""Draws whole solutions, and draws again from before the first step that the judges doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw, belief
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


@dataclass(slots=True, eq=False)
class _Solution:
    """A solution in the making. node: where its rest is drawn. tries: draws so far. out: a draw is out."""

    node: int
    tries: int = 0
    out: bool = False


class FirstError:
    """See the module. With `parallel_leaves` > 1, several solutions are in the making."""

    reopens = True

    def __init__(self, settings: FirstErrorSettings) -> None:
        self._settings = settings
        self._solutions: list[_Solution] = []

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        idle = [one for one in self._solutions if not one.out]
        new = [_Solution(tree.search_root) for _ in range(wanted - len(idle))]
        self._solutions += new
        chosen = [*idle, *new][:wanted]
        for one in chosen:
            one.out = True
        kernels.hold(state.forest, [one.node for one in chosen])
        return [Draw(one.node, 1, one) for one in chosen]

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """See `Allocation`."""
        one: _Solution = draw.chain
        one.out = False
        one.tries += 1
        if not ends:
            return
        path = state.forest.path(ends[0])[1:]
        doubted = next((node for node in path if belief(state, node) < self._settings.threshold), None)
        if doubted is None or one.tries >= self._settings.tries:
            one.node, one.tries = tree.search_root, 0
        else:
            one.node = int(state.forest.parent[doubted])


register_allocation(FirstErrorSettings, FirstError)

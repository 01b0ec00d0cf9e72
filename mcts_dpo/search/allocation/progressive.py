"""Progressive widening: a node gets another sample while it has few for its visits; otherwise a child is visited.

A node of N visits may have ⌈k · N^α⌉ samples. While it has fewer, one more sample is drawn from it. When it has all of
them, `search.selection` chooses among its children, and the rule is applied to the chosen child. Ends of solutions are
not chosen. A node whose children all are ends is drawn from again, so a tree is never exhausted.

Source: Coulom 2007, Computing Elo Ratings of Move Patterns in the Game of Go; Couëtoux et al. 2011, Continuous Upper
Confidence Trees, section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw
from mcts_dpo.search.allocation.registry import register_allocation
from mcts_dpo.search.tree import NONE

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class ProgressiveSettings(AllocationSettings):
    """A node of N visits may have ⌈k · N^α⌉ samples; with all of them, a child is visited (progressive widening).

    k:     the factor of the number of samples.
    alpha: α, the exponent of the visits. 0: every node has ⌈k⌉ samples.
    """

    kind: Literal["progressive"] = "progressive"
    k: float = Field(default=2.0, gt=0.0, allow_inf_nan=False)
    alpha: float = Field(default=0.5, ge=0.0, le=1.0)

    selections: ClassVar[tuple[str, ...]] = ("puct", "uct")
    advances: ClassVar[bool] = True


class Progressive:
    """See the module. Samples in flight count as samples and as visits."""

    reopens = True

    def __init__(self, settings: ProgressiveSettings) -> None:
        self._settings = settings

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        found = []
        for _ in range(wanted):
            node = tree.search_root
            while not self._widens(state, node) and (child := self._child(state, node)) != NONE:
                node = child
            kernels.hold(state.forest, [node])
            found.append(Draw(node, 1))
        return found

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """Nothing: the rule reads the tree."""

    def _widens(self, state: SearchState, node: int) -> bool:
        """Whether the node has fewer samples than its visits allow."""
        forest, settings = state.forest, self._settings
        children = forest.children(node)
        # A draw in flight below the node is a virtual loss of one of its children, too.
        out = int(forest.virtual[node]) - sum(int(forest.virtual[child]) for child in children)
        samples = out + sum(int(forest.samples[child]) for child in children)
        visits = int(forest.visits[node]) + int(forest.virtual[node])
        allowed: int = max(1, math.ceil(settings.k * visits**settings.alpha))
        return samples < allowed

    def _child(self, state: SearchState, node: int) -> int:
        """The child to visit; NONE if all children are ends of solutions."""
        settings = state.settings
        return kernels.best_child(
            state.forest, node, kernels.SELECTION_RULES[settings.selection], settings.c_puct, state.forest.terminal
        )


register_allocation(ProgressiveSettings, Progressive)

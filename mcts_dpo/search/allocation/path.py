"""Continues from the root to the end of a solution, and judges each step on the way.

An iteration selects an unexpanded node from the root, draws `search.children` samples there, chooses one of the
children by the score of `search.selection`, and continues below it until it comes to the end of a solution. Then the
next iteration starts. Each node that is drawn from is one simulation. If no unexpanded node is left, the root is drawn
from again, so a tree is never exhausted.

Source: the released code of Xie et al. 2024 (`iterate`; see docs/xie2024.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw
from mcts_dpo.search.allocation.fixed import all_children, select
from mcts_dpo.search.allocation.registry import register_allocation
from mcts_dpo.search.tree import EXHAUSTED, NONE

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class PathSettings(AllocationSettings):
    """An iteration continues from the root, step by step, to the end of a solution. Each expansion is a simulation."""

    kind: Literal["path"] = "path"

    expand: ClassVar[str] = "step"
    selections: ClassVar[tuple[str, ...]] = ("puct", "uct")
    advances: ClassVar[bool] = True


class Path:
    """See the module. With `parallel_leaves` > 1, several iterations run side by side."""

    reopens = True

    def __init__(self) -> None:
        self._next: list[int] = []  # the nodes where the iterations that are not at their end continue

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        forest, root = state.forest, tree.search_root
        going_on = [node for node in self._next if root in forest.path(node)]  # `advance: step` may have left some
        leaves, self._next = going_on[:wanted], going_on[wanted:]
        kernels.hold(forest, leaves)
        leaves += select(state, tree, wanted - len(leaves))
        if not leaves and forest.closed[root] == EXHAUSTED:
            leaves = [root]
            kernels.hold(forest, leaves)
        return all_children(state, leaves)

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """See `Allocation`."""
        forest, settings, node = state.forest, state.settings, draw.leaf
        rule = kernels.SELECTION_RULES[settings.selection]
        while node != NONE and forest.expanded[node]:
            node = kernels.best_child(forest, node, rule, settings.c_puct, forest.virtual)
        if ends and node != NONE and not forest.terminal[node]:
            self._next.append(node)


register_allocation(PathSettings, lambda settings: Path())

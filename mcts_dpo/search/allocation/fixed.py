"""Draws `search.children` samples from every node that selection reaches, once: the rule of the paper.

Source: Xie et al. 2024, arXiv 2405.00451, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw
from mcts_dpo.search.allocation.registry import register_allocation
from mcts_dpo.search.tree import NONE

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class FixedSettings(AllocationSettings):
    """Every node is expanded once, with `search.children` samples. `search.selection` chooses the node."""

    kind: Literal["fixed"] = "fixed"

    advances: ClassVar[bool] = True


class Fixed:
    """See the module."""

    reopens = False

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        return all_children(state, select(state, tree, wanted))

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """Nothing: selection reads the tree."""


def all_children(state: SearchState, leaves: Sequence[int]) -> list[Draw]:
    """Draws of `search.children` samples from each of `leaves` (node ids)."""
    return [Draw(leaf, state.settings.children_at(int(state.forest.depth[leaf]))) for leaf in leaves]


def select(state: SearchState, tree: TreeState, wanted: int) -> list[int]:
    """Select up to `wanted` leaves of a tree to expand, by `settings.selection`. Returns node ids.

    See `kernels.select`.
    """
    settings = state.settings
    gumbel = None
    if settings.selection == "gumbel":
        constants = settings.gumbel
        gumbel = kernels.Gumbel(
            seeds=np.array([tree.noise], np.int64),
            considered=constants.considered,
            simulations=settings.simulations - 1,  # the first simulation expands the root itself
            c_visit=constants.c_visit,
            c_scale=constants.c_scale,
        )
    leaves = kernels.select(
        state.forest,
        np.array([tree.index], np.int64),
        np.array([wanted], np.int64),
        kernels.SELECTION_RULES[settings.selection],
        settings.c_puct,
        roots=np.array([tree.search_root], np.int64),
        gumbel=gumbel,
    )
    return [leaf for leaf in leaves[0].tolist() if leaf != NONE]


register_allocation(FixedSettings, lambda settings: Fixed())

"""Where a tree search spends its next samples: allocation rules, one file each, found by name."""

from mcts_dpo.search.allocation.base import Allocation, AllocationSettings, Draw
from mcts_dpo.search.allocation.registry import allocation_names, make_allocation, register_allocation

__all__ = [
    "Allocation",
    "AllocationSettings",
    "Draw",
    "allocation_names",
    "make_allocation",
    "register_allocation",
]

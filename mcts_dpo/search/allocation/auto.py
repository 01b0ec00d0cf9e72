"""Leaves the rule open: `fixed` in a training search, and what `mcts_dpo.solve.budgets` chooses in a solving one."""

from __future__ import annotations

from typing import ClassVar, Literal

from mcts_dpo.search.allocation.base import AllocationSettings
from mcts_dpo.search.allocation.fixed import Fixed
from mcts_dpo.search.allocation.registry import register_allocation


class AutoSettings(AllocationSettings):
    """`filter` where a question is answered and a judge scores every step, `fixed` everywhere else."""

    kind: Literal["auto"] = "auto"

    advances: ClassVar[bool] = True


register_allocation(AutoSettings, lambda settings: Fixed())

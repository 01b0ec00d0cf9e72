"""Margin matching (MMPO): soft labels from the size of the gap in value.

Source: Kim et al. 2024, arXiv 2410.03145, the section on MMPO (the soft target p = σ(γ m) of the Bradley–Terry model,
and the cross-entropy to it with DPO's implicit reward).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective
from mcts_dpo.training.objectives.step_dpo import step_dpo


class MmpoSettings(ReferenceSettings):
    """DPO whose label is the Bradley–Terry probability of the pair's gap in Q.

    margin_scale: γ > 0, nats of beta · h per unit of the gap in Q: where the loss is least.
    """

    kind: Literal["mmpo"] = "mmpo"
    margin_scale: float = Field(1.0, gt=0)


def mmpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    margin: Tensor,
    gamma: float,
) -> Tensor:
    """ℓ = −p log σ(β h) − (1 − p) log σ(−β h), p = σ(γ m). [R], ≥ 0; ln 2 at π = π_ref, least at β h = γ m.

    Args: as `step_dpo`; margin: [R] m ≥ 0, the gap in value; gamma: γ > 0, nats of implicit reward per unit of value.
    """
    noise = torch.sigmoid(-gamma * margin)
    return step_dpo(chosen, rejected, reference_chosen, reference_rejected, beta=beta, smoothing=noise)


def _losses(steps: Steps, settings: MmpoSettings) -> Tensor:
    return mmpo(*steps.pairs, beta=settings.beta, margin=steps.row("margin"), gamma=settings.margin_scale)


register_objective(Objective(MmpoSettings, "pairs", _losses, needs_reference=True, needs_margins=True))

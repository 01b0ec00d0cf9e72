"""Robust DPO (rDPO): an unbiased loss for labels that are wrong at a known rate.

Source: Chowdhury, Kini and Natarajan 2024, arXiv 2403.00409, section 3.1 (the robust, unbiased loss).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective
from mcts_dpo.training.objectives.step_dpo import step_dpo


class RobustDpoSettings(ReferenceSettings):
    """DPO corrected for labels that are wrong at a known rate. It does not use the pairs' `smoothing`.

    flip_rate: ε, the share of labels that are wrong, in [0, 0.5) (paper: 0.1).
    """

    kind: Literal["robust_dpo"] = "robust_dpo"
    flip_rate: float = Field(0.1, ge=0, lt=0.5)


def robust_dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    flip_rate: Tensor | float,
) -> Tensor:
    """The loss whose mean over labels flipped at rate ε is DPO's on the true labels. [R], unbounded below.

    ℓ = ((1 − ε) L(β h) − ε L(−β h)) / (1 − 2 ε) with L(z) = −log σ(z), which is L(β h) − β h · ε / (1 − 2 ε). It is
    ln 2 at π = π_ref. Unlike conservative DPO it never comes to rest: as h grows it falls by ε / (1 − 2 ε) per unit of
    β h. Use it with an NLL term.

    Args: as `step_dpo`; flip_rate: ε in [0, 0.5), one number or [R], typically 0.1.
    """
    rate = -flip_rate / (1 - 2 * flip_rate)
    return step_dpo(chosen, rejected, reference_chosen, reference_rejected, beta=beta, smoothing=rate)


def _losses(steps: Steps, settings: RobustDpoSettings) -> Tensor:
    return robust_dpo(*steps.pairs, beta=settings.beta, flip_rate=settings.flip_rate)


register_objective(Objective(RobustDpoSettings, "pairs", _losses, needs_reference=True))

"""Hinge loss on the implicit reward (SLiC, RSO).

Sources: Zhao et al. 2023, arXiv 2305.10425, section 2 (SLiC-HF's rank calibration loss; its equation 4 adds a
cross-entropy regulariser); Liu et al. 2023, arXiv 2309.06657 (RSO: the loss "hinge-norm", L_hinge-norm, with a
reference; its γ is β here).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective


class HingeSettings(ReferenceSettings):
    """A hinge on the implicit reward: pairs that are apart by the margin teach nothing more.

    target_margin: δ, the margin asked for, > 0, in units of beta · log-probability.
    """

    kind: Literal["hinge"] = "hinge"
    preference_weight: float = Field(0.01, ge=0)
    target_margin: float = Field(1.0, gt=0)


def hinge(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    delta: float = 1.0,
) -> Tensor:
    """ℓ = max(0, δ − β h): δ at π = π_ref, 0 once β h reaches δ. [R], ≥ 0.

    With zeros for both references, and δ in nats, this is SLiC's own calibration loss.

    Args: as `step_dpo`; delta: δ > 0.
    """
    return F.relu(delta - (beta * (chosen - reference_chosen) - beta * (rejected - reference_rejected)))


def _losses(steps: Steps, settings: HingeSettings) -> Tensor:
    return hinge(*steps.pairs, beta=settings.beta, delta=settings.target_margin)


register_objective(Objective(HingeSettings, "pairs", _losses, needs_reference=True))

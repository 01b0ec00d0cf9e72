"""Tree preference optimisation (TPO): LiPO's ranking loss with adaptive step rewards.

Source: Liao et al. 2024, arXiv 2410.12854 ("Preference List Ranking" and "Adaptive Step Reward"). Its released code
weighs every step of whole solutions by 1 + the cosine of the means of the last hidden states at the step's tokens and
at those of the best solution's step, and lets gradients pass through that. Here no gradient passes through it.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.lipo import lambda_loss
from mcts_dpo.training.objectives.registry import register_objective


class TpoSettings(ReferenceSettings):
    """LiPO's ranking of all siblings, each weighed by how much it resembles the best one."""

    kind: Literal["tpo"] = "tpo"


def _similarity(steps: Steps) -> Tensor:
    """[R, width] in [−1, 1]: the cosine of each sibling's mean hidden state to that of its list's best."""
    assert steps.means is not None
    targets = steps.targets
    found = F.cosine_similarity(steps.means[targets.indices], steps.means[targets.first][:, None], dim=-1)
    return found.to(steps.policy.dtype)


def _losses(steps: Steps, settings: TpoSettings) -> Tensor:
    weights = 1 + _similarity(steps)
    value = steps.siblings("value")
    return lambda_loss(*steps.lists, value, steps.present, beta=settings.beta, step_weights=weights)


register_objective(Objective(TpoSettings, "siblings", _losses, needs_reference=True, wants_means=True))

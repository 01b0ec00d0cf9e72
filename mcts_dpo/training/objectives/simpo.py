"""Simple preference optimisation (SimPO): mean log-probability per token as the reward, without a reference.

Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import BetaSettings, Objective, Steps
from mcts_dpo.training.objectives.common import length_normalised
from mcts_dpo.training.objectives.registry import register_objective


class SimpoSettings(BetaSettings):
    """Preference for a higher mean log-probability per token, by a margin; without a reference.

    beta:              the scale of the reward, > 0 (paper: 2 to 10).
    preference_weight: of ℓ, whose slope is divided by the step's tokens.
    target_margin:     γ, the margin asked for, > 0, in units of beta · log-probability (paper: 0.3 to 0.5 times beta).
    """

    kind: Literal["simpo"] = "simpo"
    preference_weight: float = Field(0.1, ge=0)
    target_margin: float = Field(1.0, gt=0)


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """ℓ = −log σ(β log π(y_w|s) / |y_w| − β log π(y_l|s) / |y_l| − γ). [R], ≥ 0.

    Args:
        chosen, rejected: [R] log-probabilities of the steps under the policy, nats.
        chosen_lengths, rejected_lengths: [R] tokens of the steps, ≥ 1.
        beta: > 0, typically 2 to 10.
        gamma: ≥ 0, the target margin, typically 0.3 to 0.5 times β.
    """
    chosen_rewards = beta * length_normalised(chosen, chosen_lengths)
    rejected_rewards = beta * length_normalised(rejected, rejected_lengths)
    return -F.logsigmoid(chosen_rewards - rejected_rewards - gamma)


def _losses(steps: Steps, settings: SimpoSettings) -> Tensor:
    return simpo(*steps.pairs_without_reference, beta=settings.beta, gamma=settings.target_margin)


register_objective(Objective(SimpoSettings, "pairs", _losses))

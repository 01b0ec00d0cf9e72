"""Odds-ratio preference optimisation (ORPO): likelihood plus an odds-ratio term, without a reference.

Source: Hong, Lee and Thorne 2024, arXiv 2403.07691, equations 4 to 7.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import LossSettings, Objective, Steps
from mcts_dpo.training.objectives.common import length_normalised
from mcts_dpo.training.objectives.registry import register_objective


class OrpoSettings(LossSettings):
    """The odds ratio of the chosen over the rejected step, beside the NLL of the chosen one; without a reference.

    preference_weight: the paper's λ.
    """

    kind: Literal["orpo"] = "orpo"
    preference_weight: float = Field(0.1, ge=0)


def orpo(chosen: Tensor, rejected: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor) -> Tensor:
    """The odds-ratio term, which is added to the NLL of the chosen step. [R], ≥ 0.

    ℓ = −log σ(log odds(y_w) − log odds(y_l)), odds(y) = P / (1 − P), where P is the geometric mean of the token
    probabilities. It is ln 2 where both steps are equally likely per token.

    Args:
        chosen, rejected: [R] log-probabilities of the steps under the policy, nats.
        chosen_lengths, rejected_lengths: [R] tokens of the steps, ≥ 1.
    """
    return -F.logsigmoid(_log_odds(chosen, chosen_lengths) - _log_odds(rejected, rejected_lengths))


def _log_odds(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """log(P / (1 − P)) of P = exp(mean log-probability)."""
    # At P = 1 the odds are infinite. Closer to 1 than the dtype can tell, more odds are no evidence of anything.
    mean = length_normalised(logprobs, lengths).clamp(max=-torch.finfo(logprobs.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))


def _losses(steps: Steps, settings: OrpoSettings) -> Tensor:
    return orpo(*steps.pairs_without_reference)


register_objective(Objective(OrpoSettings, "pairs", _losses))

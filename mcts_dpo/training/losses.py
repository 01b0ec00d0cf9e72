"""Losses as pure functions of log-probabilities. They know no model, no batch and no trainer.

A preference loss takes, per pair, the log-probability of each step (natural log, summed over the step's
tokens only) under the policy and under the reference, and returns one loss per pair together with the
implicit rewards; `weighted_mean` makes the number that is differentiated. All arguments are tensors of
one floating dtype and of shape [pairs], unless said otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PreferenceLoss(NamedTuple):
    """What every preference loss returns.

    losses:           [pairs], ≥ 0, differentiable.
    chosen_rewards:   [pairs], β · (log π − log π_ref) of the chosen step, detached.
    rejected_rewards: [pairs], the same of the rejected step.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def step_dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    smoothing: Tensor | float = 0.0,
) -> PreferenceLoss:
    """Step-level DPO with a label that is the wrong way round with probability `smoothing`.

    h = (log π(y_w|s) − log π_ref(y_w|s)) − (log π(y_l|s) − log π_ref(y_l|s));
    ℓ = −(1 − α) log σ(β h) − α log σ(−β h). At π = π_ref it is ln 2 whatever α.

    beta:      > 0, typically 0.1 (whole solutions) to 1 (steps of a few nats).
    smoothing: α in [0, 0.5), one number or one per pair; with α > 0 the loss is least at β h = ln((1 − α) / α).

    Sources: Rafailov et al. 2023, arXiv 2305.18290, equation 7 (α = 0); Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO" (conservative DPO); Xie et al. 2024, arXiv 2405.00451, section 2.2 (one α
    per pair, from visit counts).
    """
    chosen_rewards = beta * (chosen - reference_chosen)
    rejected_rewards = beta * (rejected - reference_rejected)
    logits = chosen_rewards - rejected_rewards
    # −log σ(−z) = −log σ(z) + z: one sigmoid for both labels, and exact where either saturates.
    losses = -F.logsigmoid(logits) + smoothing * logits
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def negative_log_likelihood(logprobs: Tensor, weights: Tensor | None = None, total: float | None = None) -> Tensor:
    """Weighted mean of −log π over tokens: ordinary maximum likelihood; rejection-sampling fine-tuning when the
    tokens are those of the policy's own accepted solutions (Yuan et al. 2023, arXiv 2308.01825, section 3.3).

    logprobs: [tokens]; weights: [tokens] ≥ 0 (None: all 1); total: see `weighted_mean`. Returns a scalar.
    """
    return weighted_mean(-logprobs, weights, total)


def weighted_mean(values: Tensor, weights: Tensor | None = None, total: float | None = None) -> Tensor:
    """Σ wᵢ vᵢ / total, a scalar.

    weights: like `values` (None: all 1).
    total:   > 0, the sum of the weights of the whole update when `values` are only a part of it: the parts then
             add up to the mean over the update, whatever the parts. None: the sum of `weights`.
    """
    if weights is None:
        weights = torch.ones_like(values)
    return torch.dot(weights.to(values.dtype), values) / (weights.sum() if total is None else total)

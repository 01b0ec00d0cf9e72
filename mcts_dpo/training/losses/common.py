"""What the families of losses share: likelihood, weighted means, shares, and length normalisation.

In and out: tensors of one floating dtype. Natural logarithms throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PreferenceLoss(NamedTuple):
    """What every loss over pairs returns.

    losses:           [pairs], differentiable; ≥ 0 where the function does not say otherwise.
    chosen_rewards:   [pairs], the chosen step's reward as the loss sees it (mostly β · (log π − log π_ref)), detached.
    rejected_rewards: [pairs], the same of the rejected step.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


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


def length_normalised(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """The mean log-probability per token of each step: put in place of the sums, policy's and reference's alike, it
    makes any loss here its length-normalised variant.

    logprobs: sums over steps; lengths: the same shape, tokens ≥ 1.

    Source: Meng et al. 2024, arXiv 2405.14734, equation 3; for DPO, Lambert et al. 2024 (Tülu 3), arXiv 2411.15124
    (length-normalised DPO).
    """
    return logprobs / lengths.to(logprobs.dtype)


def shares(counts: Tensor, present: Tensor) -> Tensor:
    """[lists, width]: each sibling's share of its list's counts, 0 where none is present; rows add up to 1.

    counts: [lists, width] ≥ 0, e.g. how often each step was sampled; present: [lists, width] bool.
    """
    real = torch.where(present, counts, torch.zeros_like(counts))
    return real / real.sum(dim=1, keepdim=True)

"""What several losses share: likelihood, weighted means, shares, and length normalisation.

In and out: tensors of one floating dtype. Logarithms are natural.
"""

from __future__ import annotations

import torch
from torch import Tensor


def negative_log_likelihood(logprobs: Tensor, weights: Tensor | None = None, total: float | None = None) -> Tensor:
    """Weighted mean of −log π over tokens: maximum likelihood. A scalar.

    Args: logprobs: [tokens]; weights: [tokens] ≥ 0 (None: all 1); total: see `weighted_mean`.
    """
    return weighted_mean(-logprobs, weights, total)


def weighted_mean(values: Tensor, weights: Tensor | None = None, total: float | None = None) -> Tensor:
    """Σ wᵢ vᵢ / total, a scalar.

    Args:
        weights: like `values` (None: all 1).
        total: > 0, the sum of the weights of the whole update when `values` are only a part of it. The parts then add
            up to the mean over the update, however it is divided. None: the sum of `weights`.
    """
    if weights is None:
        weights = torch.ones_like(values)
    return torch.dot(weights.to(values.dtype), values) / (weights.sum() if total is None else total)


def length_normalised(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """The mean log-probability per token of each step. Used instead of the sums, for the policy and the reference
    alike, it makes any loss its length-normalised variant.

    Args: logprobs: sums over steps; lengths: the same shape, tokens ≥ 1.

    Source: Meng et al. 2024, arXiv 2405.14734, equation 3; for DPO, Lambert et al. 2024 (Tülu 3), arXiv 2411.15124
    (length-normalised DPO).
    """
    return logprobs / lengths.to(logprobs.dtype)


def shares(counts: Tensor, present: Tensor) -> Tensor:
    """[lists, width]: each sibling's share of its list's counts, 0 where there is none; rows add up to 1.

    Args: counts: [lists, width] ≥ 0, for example how often each step was sampled; present: [lists, width] bool.
    """
    real = torch.where(present, counts, torch.zeros_like(counts))
    return real / real.sum(dim=1, keepdim=True)

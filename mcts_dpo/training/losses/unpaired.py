"""Losses over steps that are good or bad by themselves, without a partner.

In and out: tensors of one floating dtype. Log-probabilities are natural and summed over the step's tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mcts_dpo.training.losses.common import shares


def kto(
    logprobs: Tensor,
    reference: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO: a desirable step should be worth more than the policy's drift, an undesirable one less. [steps], in [0, λ].

    r = log π − log π_ref; ℓ = λ_D (1 − σ(β (r − z₀))) for a desirable step, λ_U (1 − σ(β (z₀ − r))) for another; λ / 2
    at π = π_ref. Its gradient vanishes at both ends: what is hopeless and what is done are left alone.

    logprobs, reference: [steps]. desirable: [steps] bool. kl: z₀ ≥ 0 per step, e.g. by `sibling_kl`; no gradient
    passes through it. beta: > 0. desirable_weight, undesirable_weight: λ_D, λ_U > 0; the paper wants the two classes'
    summed weights within a ratio of 1 to 4/3.

    Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 7.
    """
    gain = beta * (logprobs - reference - kl.detach())
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(gain.dtype)
    return weight * torch.sigmoid(torch.where(desirable, -gain, gain))


def sibling_kl(logprobs: Tensor, reference: Tensor, counts: Tensor, present: Tensor) -> Tensor:
    """[lists]: KL(π ‖ π_ref) at a state in nats, estimated from the siblings that π_ref sampled there. ≥ 0, detached.

    Self-normalised importance sampling: with q the siblings' shares of the samples and p ∝ q · π / π_ref, it is
    KL(p ‖ q). It is consistent in the number of samples, 0 at π = π_ref, and bounded by −log of the least share, so
    that it cannot explode as the plain average of (π / π_ref) log(π / π_ref) does. It does not see mass that moved to
    steps never sampled, and so is too small where all siblings sink.

    KTO's paper estimates one z₀ per batch from completions paired with other prompts (section 4.1), which would need
    forward passes of its own; this needs none, and depends on no other list of the batch.

    All arguments: [lists, width]; see `lists` for `present`, and `shares` for counts.
    """
    with torch.no_grad():
        sampled = shares(counts, present).log()
        moved = torch.where(present, logprobs - reference, torch.zeros_like(logprobs)) + sampled
        updated = torch.log_softmax(moved.masked_fill(sampled == -math.inf, -math.inf), dim=1)
        gaps = torch.where(sampled == -math.inf, torch.zeros_like(updated), updated - sampled)
        return (updated.exp() * gaps).sum(dim=1).clamp(min=0.0)

"""Kahneman–Tversky optimisation (KTO): steps that are desirable or not by themselves, without a partner.

Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 7.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.common import shares
from mcts_dpo.training.objectives.registry import register_objective


class KtoSettings(ReferenceSettings):
    """Unpaired learning: a sibling is desirable where Q is above its parent's V, undesirable where it is below.

    A sibling with Q = V is left out.

    desirable_weight, undesirable_weight: λ_D and λ_U, > 0. The paper wants the two classes' summed weights within a
                                          ratio of 1 to 4/3.
    """

    kind: Literal["kto"] = "kto"
    preference_weight: float = Field(0.04, ge=0)
    desirable_weight: float = Field(1.0, gt=0)
    undesirable_weight: float = Field(1.0, gt=0)


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
    """A desirable step should gain more than the policy's drift, an undesirable one less. [steps], in [0, λ].

    r = log π − log π_ref; ℓ = λ_D (1 − σ(β (r − z₀))) for a desirable step, λ_U (1 − σ(β (z₀ − r))) for another. It is
    λ / 2 at π = π_ref. Its gradient vanishes at both ends.

    Args:
        logprobs, reference: [steps] log-probabilities under the policy and the reference, nats.
        desirable: [steps] bool.
        kl: z₀ ≥ 0 per step, for example by `sibling_kl`. No gradient passes through it.
        beta: > 0.
        desirable_weight, undesirable_weight: λ_D, λ_U > 0.
    """
    gain = beta * (logprobs - reference - kl.detach())
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(gain.dtype)
    return weight * torch.sigmoid(torch.where(desirable, -gain, gain))


def sibling_kl(logprobs: Tensor, reference: Tensor, counts: Tensor, present: Tensor) -> Tensor:
    """[lists]: KL(π ‖ π_ref) at a state in nats, estimated from the siblings that π_ref sampled there. ≥ 0, detached.

    Self-normalised importance sampling: with q the siblings' shares of the samples and p ∝ q · π / π_ref, the estimate
    is KL(p ‖ q). It is consistent in the number of samples, 0 at π = π_ref, and bounded by −log of the least share. The
    plain average of (π / π_ref) log(π / π_ref) has no such bound. It does not see mass that moved to steps that were
    never sampled, and is too small where all siblings sink.

    KTO's paper estimates one z₀ per batch from completions paired with other prompts (section 4.1). That needs forward
    passes of its own; this needs none and depends on no other list of the batch.

    Args: matrices of [lists, width]; `present` says which entries are steps; counts: see `shares`.
    """
    with torch.no_grad():
        sampled = shares(counts, present).log()
        moved = torch.where(present, logprobs - reference, torch.zeros_like(logprobs)) + sampled
        updated = torch.log_softmax(moved.masked_fill(sampled == -math.inf, -math.inf), dim=1)
        gaps = torch.where(sampled == -math.inf, torch.zeros_like(updated), updated - sampled)
        return (updated.exp() * gaps).sum(dim=1).clamp(min=0.0)


def _losses(steps: Steps, settings: KtoSettings) -> Tensor:
    """[R]: each list's mean over its samples."""
    policy, reference = steps.lists
    count, advantage = steps.siblings("count"), steps.siblings("advantage")
    drift = sibling_kl(policy, reference, count, steps.present)
    found = kto(
        policy,
        reference,
        advantage > 0,
        drift[:, None],
        beta=settings.beta,
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
    )
    return (shares(count, steps.present) * (advantage != 0) * found).sum(dim=1)


register_objective(Objective(KtoSettings, "siblings", _losses, needs_reference=True))

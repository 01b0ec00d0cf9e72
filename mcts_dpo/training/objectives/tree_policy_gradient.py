"""Policy gradient with the tree's own values as advantages, with a clipped ratio.

Sources: Schulman et al. 2017, arXiv 1707.06347, equation 7 (the clipped ratio); per step rather than per token, as
Zheng et al. 2025 (GSPO), arXiv 2507.18071, do per solution; advantages from a tree as in Hou et al. 2025 (TreeRL),
arXiv 2506.11902.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import LossSettings, Objective, Steps
from mcts_dpo.training.objectives.common import shares
from mcts_dpo.training.objectives.registry import register_objective


class TreePolicyGradientSettings(LossSettings):
    """A clipped policy gradient whose advantage of a step is Q − V of its parent.

    advantage_clip: bound on |Q − V|, > 0.
    ratio_clip:     ε of the clipped ratio, in (0, 1), typically 0.1 to 0.3.
    """

    kind: Literal["tree_policy_gradient"] = "tree_policy_gradient"
    preference_weight: float = Field(0.05, ge=0)
    advantage_clip: float = Field(1.0, gt=0)
    ratio_clip: float = Field(0.2, gt=0, lt=1)


def tree_policy_gradient(
    logprobs: Tensor,
    reference: Tensor,
    advantages: Tensor,
    counts: Tensor,
    present: Tensor,
    *,
    advantage_clip: float,
    ratio_clip: float,
) -> Tensor:
    """Each sibling's advantage is A = Q − V(parent), clipped; its weight is its share of the samples. [lists].

    ρ = π / π_ref of the step; ℓ = − Σ (nᵢ / Σ n) · min(ρᵢ Aᵢ, clip(ρᵢ, 1 − ε, 1 + ε) Aᵢ). Its gradient at π = π_ref is
    that of − Σ (nᵢ / Σ n) Aᵢ log πᵢ. It is 0 for a good step once ρ > 1 + ε and for a bad one once ρ < 1 − ε: a bad
    step is lowered by log(1 − ε) and no further. The loss may be negative.

    Args:
        logprobs: [lists, width] log-probabilities under the policy, nats.
        reference: [lists, width] the same under the policy that sampled the steps.
        advantages: [lists, width] Q − V, clipped here to ± advantage_clip (> 0).
        counts: [lists, width] n ≥ 0, some > 0 in every list: how often each step was sampled.
        present: [lists, width] bool, which entries are steps. Others are ignored and get no gradient.
        ratio_clip: ε in (0, 1).
    """
    clipped = advantages.clamp(-advantage_clip, advantage_clip)
    change = torch.where(present, logprobs - reference, torch.zeros_like(logprobs))
    raised, lowered = change.clamp(max=math.log1p(ratio_clip)), change.clamp(min=math.log1p(-ratio_clip), max=20.0)
    ratio = torch.where(clipped > 0, raised, lowered).exp()
    weighted = shares(counts, present) * torch.where(present, clipped, torch.zeros_like(clipped))
    return -(weighted * ratio).sum(dim=1)


def _losses(steps: Steps, settings: TreePolicyGradientSettings) -> Tensor:
    return tree_policy_gradient(
        *steps.lists,
        steps.siblings("advantage"),
        steps.siblings("count"),
        steps.present,
        advantage_clip=settings.advantage_clip,
        ratio_clip=settings.ratio_clip,
    )


register_objective(Objective(TreePolicyGradientSettings, "siblings", _losses, needs_reference=True))

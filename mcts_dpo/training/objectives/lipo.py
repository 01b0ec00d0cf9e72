"""List-wise preference optimisation (LiPO-λ): a ranking loss over all siblings of a parent.

Source: Liu et al. 2024, arXiv 2402.01878 (LiPO-λ: the lambda loss with lambda weight Δ, gains G = 2^ψ − 1, rank
discounts D = log(1 + τ)).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective


class LipoSettings(ReferenceSettings):
    """Every better sibling over every worse one, weighted by what their order matters to the ranking."""

    kind: Literal["lipo"] = "lipo"


def lambda_loss(
    logprobs: Tensor,
    reference: Tensor,
    values: Tensor,
    present: Tensor,
    *,
    beta: float,
    step_weights: Tensor | None = None,
) -> Tensor:
    """The loss of LiPO-λ and TPO over lists. [lists], ≥ 0.

    sᵢ = β wᵢ (log π − log π_ref) of sibling i, ψᵢ its value, τ(i) its rank by s (1 is first; ties by index);
    ℓ = − Σ_{ψᵢ > ψⱼ} Δᵢⱼ log σ(sᵢ − sⱼ) / Σ_{ψᵢ > ψⱼ} Δᵢⱼ,
    Δᵢⱼ = |2^ψᵢ − 2^ψⱼ| · |1 / log(1 + τ(i)) − 1 / log(1 + τ(j))|.
    The papers do not divide by the sum. With it a list weighs as much as a pair, and ℓ is ln 2 at π = π_ref for every
    width. With two siblings and w = 1 it is DPO. It is 0 for a list whose values are all equal.

    Args:
        logprobs, reference: [lists, width] log-probabilities under the policy and the reference, nats.
        values: [lists, width] ψ, for example Q in [−1, 1].
        present: [lists, width] bool, which entries are steps. Others are ignored and get no gradient.
        beta: > 0, as in `step_dpo`.
        step_weights: [lists, width] w ≥ 0, TPO's adaptive step reward (None: all 1, which is LiPO). Weights, ranks and
            Δ are constants to the gradient.
    """
    scores = beta * (logprobs - reference)
    if step_weights is not None:
        scores = step_weights * scores
    order = scores.detach().masked_fill(~present, -math.inf).argsort(dim=1, descending=True, stable=True)
    discount = 1 / torch.log1p(1 + order.argsort(dim=1).to(scores.dtype))
    gain = torch.exp2(values)
    better = present[:, :, None] & present[:, None, :] & (values[:, :, None] > values[:, None, :])
    weights = (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
    weights = torch.where(better, weights, torch.zeros_like(weights))
    gaps = scores[:, :, None] - scores[:, None, :]
    # Entries without a pair get a gap of 0, so that nothing infinite is ever multiplied by their weight of 0.
    losses = -F.logsigmoid(torch.where(better, gaps, torch.zeros_like(gaps)))
    total = weights.sum(dim=(1, 2))
    return (weights * losses).sum(dim=(1, 2)) / total.clamp(min=torch.finfo(total.dtype).tiny)


def _losses(steps: Steps, settings: LipoSettings) -> Tensor:
    return lambda_loss(*steps.lists, steps.siblings("value"), steps.present, beta=settings.beta)


register_objective(Objective(LipoSettings, "siblings", _losses, needs_reference=True))

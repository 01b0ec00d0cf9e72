"""Losses over lists: all siblings after the same prefix at once.

Each takes matrices of shape [lists, width] of one floating dtype, a list per row, and `present`, a bool matrix that
says which places hold a sibling (at least one per row; what stands elsewhere is ignored and gets no gradient), and
returns one loss per list, [lists]. Log-probabilities are natural and summed over the step's tokens (or divided by
their number, for the length-normalised variant).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.training.losses.common import shares


def lambda_loss(
    logprobs: Tensor,
    reference: Tensor,
    values: Tensor,
    present: Tensor,
    *,
    beta: float,
    step_weights: Tensor | None = None,
) -> Tensor:
    """LiPO-λ and TPO: every better sibling over every worse one, weighted by what their order matters to the ranking.

    sᵢ = β wᵢ (log π − log π_ref) of sibling i, ψᵢ its value, τ(i) its rank by s (1 is first; ties by place);
    ℓ = − Σ_{ψᵢ > ψⱼ} Δᵢⱼ log σ(sᵢ − sⱼ) / Σ_{ψᵢ > ψⱼ} Δᵢⱼ,
    Δᵢⱼ = |2^ψᵢ − 2^ψⱼ| · |1 / log(1 + τ(i)) − 1 / log(1 + τ(j))|.
    The papers do not divide by the sum; here a list then weighs as much as a pair, and ℓ is ln 2 at π = π_ref whatever
    its width. With two siblings and w = 1 it is DPO. 0 for a list in which no value differs.

    reference: as logprobs. values: ψ, e.g. Q in [−1, 1]. beta: > 0, as in `step_dpo`.
    step_weights: w ≥ 0, TPO's adaptive step reward (None: all 1, which is LiPO): 1 + the cosine similarity of the
    step to the list's best one, in the policy's last states. It, ranks and Δ are constants to the gradient.

    Sources: Liu et al. 2024, arXiv 2402.01878 (LiPO-λ: the lambda loss with lambda weight Δ, gains G = 2^ψ − 1, rank
    discounts D = log(1 + τ)); Liao et al. 2024, arXiv 2410.12854 (TPO: "Preference List Ranking" and "Adaptive Step
    Reward"; its released code weighs every step of whole solutions by 1 + the cosine of the means of the last hidden
    states at the step's tokens and at those of the best solution's step, and lets gradients pass through that).
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
    # Places without a pair get a gap of 0, so that nothing infinite is ever multiplied by their weight of 0.
    losses = -F.logsigmoid(torch.where(better, gaps, torch.zeros_like(gaps)))
    total = weights.sum(dim=(1, 2))
    return (weights * losses).sum(dim=(1, 2)) / total.clamp(min=torch.finfo(total.dtype).tiny)


def sibling_distillation(
    logprobs: Tensor, values: Tensor, counts: Tensor, present: Tensor, *, tau: float, renormalise: bool = False
) -> Tensor:
    """Cross-entropy of the policy to what the search made of it: pᵢ ∝ nᵢ · exp(Qᵢ / τ) over the siblings.

    ℓ = − Σ pᵢ log π(aᵢ|s). With n the times that the policy itself sampled each step, p estimates the policy that
    gains most value for its distance from it, π* ∝ π · exp(Q / τ), and ℓ imitates that. No reference.

    values: Q. counts: n ≥ 0, some > 0 in every list. tau: τ > 0, in units of Q: small takes the best sibling only,
    large those sampled most.
    renormalise: compare p with the policy's probabilities renormalised over the siblings: then only their order of
    merit is learned, none is made likelier as such, and all may sink together.

    Sources: Silver et al. 2017, doi 10.1038/nature24270, equation 1 (cross-entropy to the search's own policy);
    Abdolmaleki et al. 2018, arXiv 1806.06920 (MPO: the nonparametric solution q ∝ π · exp(Q / η) of its E-step, then
    weighted maximum likelihood as its M-step; η is τ here); Grill et al. 2020, arXiv 2007.12509 (search as regularised
    policy optimisation).
    """
    target = torch.softmax((counts.log() + values / tau).masked_fill(~present, -math.inf), dim=1)
    if renormalise:
        logprobs = torch.log_softmax(logprobs.masked_fill(~present, -math.inf), dim=1)
    return -(target * torch.where(present, logprobs, torch.zeros_like(logprobs))).sum(dim=1)


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
    """Policy gradient with the tree's own values: each sibling's advantage is A = Q − V(parent), clipped.

    ρ = π / π_ref of the step; ℓ = − Σ (nᵢ / Σ n) · min(ρᵢ Aᵢ, clip(ρᵢ, 1 − ε, 1 + ε) Aᵢ). Its gradient at π = π_ref is
    that of − Σ (nᵢ / Σ n) Aᵢ log πᵢ, and it is 0 for a good step once ρ > 1 + ε and for a bad one once ρ < 1 − ε: a bad
    step is lowered by log(1 − ε) and no further. May be negative.

    reference: the policy that sampled the steps. advantages: Q − V, clipped here to ± advantage_clip (> 0).
    counts: n ≥ 0, some > 0 in every list: how often each step was sampled. ratio_clip: ε in (0, 1).

    Sources: Schulman et al. 2017, arXiv 1707.06347, equation 7 (the clipped ratio); per step rather than per token, as
    Zheng et al. 2025 (GSPO), arXiv 2507.18071, do per solution; advantages from a tree as in Hou et al. 2025 (TreeRL),
    arXiv 2506.11902.
    """
    clipped = advantages.clamp(-advantage_clip, advantage_clip)
    change = torch.where(present, logprobs - reference, torch.zeros_like(logprobs))
    raised, lowered = change.clamp(max=math.log1p(ratio_clip)), change.clamp(min=math.log1p(-ratio_clip), max=20.0)
    ratio = torch.where(clipped > 0, raised, lowered).exp()
    weighted = shares(counts, present) * torch.where(present, clipped, torch.zeros_like(clipped))
    return -(weighted * ratio).sum(dim=1)

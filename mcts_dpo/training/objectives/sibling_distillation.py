"""Distillation of the search's own policy over siblings, without a reference.

Sources: Silver et al. 2017, doi 10.1038/nature24270, equation 1 (cross-entropy to the search's own policy);
Abdolmaleki et al. 2018, arXiv 1806.06920 (MPO: the nonparametric solution q ∝ π · exp(Q / η) of its E-step, then
weighted maximum likelihood as its M-step; η is τ here); Grill et al. 2020, arXiv 2007.12509 (search as regularised
policy optimisation).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import LossSettings, Objective, Steps
from mcts_dpo.training.objectives.registry import register_objective


class SiblingDistillationSettings(LossSettings):
    """Cross-entropy to n · exp(Q / temperature) over the siblings of a parent; without a reference.

    preference_weight: of ℓ, a likelihood: 0.1 on a step's sum is as much as the NLL's 1 on the mean of ten tokens.
    temperature:       τ, in units of Q, > 0: 0.1 to 2.
    renormalise:       compare with the policy's probabilities renormalised over the siblings.
    """

    kind: Literal["sibling_distillation"] = "sibling_distillation"
    preference_weight: float = Field(0.1, ge=0)
    temperature: float = Field(0.5, gt=0)
    renormalise: bool = False


def sibling_distillation(
    logprobs: Tensor, values: Tensor, counts: Tensor, present: Tensor, *, tau: float, renormalise: bool = False
) -> Tensor:
    """Cross-entropy of the policy to what the search made of it: pᵢ ∝ nᵢ · exp(Qᵢ / τ) over the siblings. [lists].

    ℓ = − Σ pᵢ log π(aᵢ|s). With n the times that the policy itself sampled each step, p estimates the policy that
    gains most value for its distance from it, π* ∝ π · exp(Q / τ), and ℓ imitates that.

    Args:
        logprobs: [lists, width] log-probabilities under the policy, nats.
        values: [lists, width] Q.
        counts: [lists, width] n ≥ 0, some > 0 in every list.
        present: [lists, width] bool, which entries are steps. Others are ignored and get no gradient.
        tau: τ > 0, in units of Q: a small one takes the best sibling only, a large one those sampled most.
        renormalise: compare p with the policy's probabilities renormalised over the siblings. Then only their order
            of merit is learned: none becomes likelier as such, and all may sink together.
    """
    target = torch.softmax((counts.log() + values / tau).masked_fill(~present, -math.inf), dim=1)
    if renormalise:
        logprobs = torch.log_softmax(logprobs.masked_fill(~present, -math.inf), dim=1)
    return -(target * torch.where(present, logprobs, torch.zeros_like(logprobs))).sum(dim=1)


def _losses(steps: Steps, settings: SiblingDistillationSettings) -> Tensor:
    return sibling_distillation(
        steps.lists_without_reference,
        steps.siblings("value"),
        steps.siblings("count"),
        steps.present,
        tau=settings.temperature,
        renormalise=settings.renormalise,
    )


register_objective(Objective(SiblingDistillationSettings, "siblings", _losses))

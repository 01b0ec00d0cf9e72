"""Identity preference optimisation (IPO): regression of the gap to a fixed target.

Source: Azar et al. 2023, arXiv 2310.12036, equation 17.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective


class IpoSettings(ReferenceSettings):
    """Regression of the gap between chosen and rejected step to 1 / (2 beta) nats.

    beta: the paper's τ, > 0. The default's target is 2 nats, about where likelihood alone leaves the gap on small
          policies. At 0.5 nats (beta 1) it held the policy back there.
    """

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(0.25, gt=0)
    preference_weight: float = Field(0.0025, ge=0)


def ipo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float
) -> Tensor:
    """The gap h is regressed to a fixed target, so that certain preferences do not drive it to infinity. [R], ≥ 0.

    ℓ = (h − 1 / (2 β))². At π = π_ref it is (1 / (2 β))², and the scale of its gradient is 1 / β.

    Args: as `step_dpo`; beta: > 0. The target gap is 1 / (2 β) nats: 0.5 at β = 1.
    """
    gap = (chosen - reference_chosen) - (rejected - reference_rejected)
    return (gap - 1 / (2 * beta)).square()


def _losses(steps: Steps, settings: IpoSettings) -> Tensor:
    return ipo(*steps.pairs, beta=settings.beta)


register_objective(Objective(IpoSettings, "pairs", _losses, needs_reference=True))

"""DPO with an offset (ODPO): the better the chosen step, the wider the gap asked for.

Source: Amini, Vieira and Cotterell 2024, arXiv 2402.10571, the section "DPO with an Offset" (L^ODPO = −E log σ(r̂_w −
r̂_l − Δ_r), Δ_r = α f(score_w − score_l)).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective


class OdpoSettings(ReferenceSettings):
    """DPO that asks for a gap in proportion to the pair's gap in Q.

    margin_scale: nats of beta · h per unit of the gap in Q, > 0: the offset is their product.
    """

    kind: Literal["odpo"] = "odpo"
    margin_scale: float = Field(1.0, gt=0)


def odpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    offset: Tensor | float,
) -> Tensor:
    """ℓ = −log σ(β h − Δ); log(1 + e^Δ) at π = π_ref. [R], ≥ 0.

    Args: as `step_dpo`; offset: Δ ≥ 0, one number or [R], in units of β h: an increasing function of the gap in value.
    Here it is the gap in Q itself, scaled (the paper's default is the logarithm of a gap in score).
    """
    logits = beta * (chosen - reference_chosen) - beta * (rejected - reference_rejected)
    return -F.logsigmoid(logits - offset)


def _losses(steps: Steps, settings: OdpoSettings) -> Tensor:
    return odpo(*steps.pairs, beta=settings.beta, offset=settings.margin_scale * steps.row("margin"))


register_objective(Objective(OdpoSettings, "pairs", _losses, needs_reference=True, needs_margins=True))

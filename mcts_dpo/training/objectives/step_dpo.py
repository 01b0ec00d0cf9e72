"""Step-level direct preference optimisation (DPO), with label noise from visit counts.

Sources: Rafailov et al. 2023, arXiv 2305.18290, equation 7; Mitchell 2023, "A note on DPO with noisy preferences &
relationship to IPO" (conservative DPO); Xie et al. 2024, arXiv 2405.00451, section 2.2 (one noise rate per pair).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mcts_dpo.training.objectives.base import Objective, ReferenceSettings, Steps
from mcts_dpo.training.objectives.registry import register_objective

if TYPE_CHECKING:
    from torch import Tensor


class StepDpoSettings(ReferenceSettings):
    """Direct preference optimisation on pairs of steps. It uses the column `smoothing` of the pairs."""

    kind: Literal["step_dpo"] = "step_dpo"


def step_dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    smoothing: Tensor | float = 0.0,
) -> Tensor:
    """DPO on steps whose label is wrong with probability `smoothing`. [R], ≥ 0.

    ℓ = −(1 − α) log σ(β h) − α log σ(−β h), h = (log π − log π_ref)(chosen) − (log π − log π_ref)(rejected). At
    π = π_ref it is ln 2 for every α.

    Args:
        chosen, rejected: [R] log-probabilities of the steps under the policy, nats.
        reference_chosen, reference_rejected: [R] the same under the reference.
        beta: > 0, typically 0.1 (whole answers) to 1 (steps of a few nats).
        smoothing: α in [0, 0.5), one number or [R]. With α > 0 the loss is least at β h = ln((1 − α) / α).
    """
    # These are the default settings of training: reading them must not wait for torch.
    from torch.nn.functional import logsigmoid

    logits = beta * (chosen - reference_chosen) - beta * (rejected - reference_rejected)
    # −log σ(−z) = −log σ(z) + z: one sigmoid serves both labels and is exact where either saturates.
    return -logsigmoid(logits) + smoothing * logits


def _losses(steps: Steps, settings: StepDpoSettings) -> Tensor:
    return step_dpo(*steps.pairs, beta=settings.beta, smoothing=steps.row("smoothing"))


register_objective(Objective(StepDpoSettings, "pairs", _losses, needs_reference=True))

"""Losses over pairs: one step preferred to another after the same prefix.

Each takes, per pair, the log-probability of both steps (natural log, summed over the step's tokens only; divided by
their number for the length-normalised variant) under the policy and, where it needs one, under the reference, and
returns a `PreferenceLoss`. All arguments are tensors of one floating dtype and of shape [pairs], unless said
otherwise. Throughout

    h = (log π(y_w|s) − log π_ref(y_w|s)) − (log π(y_l|s) − log π_ref(y_l|s)).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.training.losses.common import PreferenceLoss, length_normalised


def step_dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    smoothing: Tensor | float = 0.0,
) -> PreferenceLoss:
    """Step-level DPO with a label that is the wrong way round with probability `smoothing`.

    ℓ = −(1 − α) log σ(β h) − α log σ(−β h). At π = π_ref it is ln 2 whatever α.

    beta:      > 0, typically 0.1 (whole solutions) to 1 (steps of a few nats).
    smoothing: α in [0, 0.5), one number or one per pair; with α > 0 the loss is least at β h = ln((1 − α) / α).

    Sources: Rafailov et al. 2023, arXiv 2305.18290, equation 7 (α = 0); Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO" (conservative DPO); Xie et al. 2024, arXiv 2405.00451, section 2.2 (one α
    per pair, from visit counts).
    """
    chosen_rewards = beta * (chosen - reference_chosen)
    rejected_rewards = beta * (rejected - reference_rejected)
    logits = chosen_rewards - rejected_rewards
    # −log σ(−z) = −log σ(z) + z: one sigmoid for both labels, and exact where either saturates.
    losses = -F.logsigmoid(logits) + smoothing * logits
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def robust_dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    flip_rate: Tensor | float,
) -> PreferenceLoss:
    """rDPO: the loss whose mean over labels that are flipped at a known rate is DPO's on the true labels.

    ℓ = ((1 − ε) L(β h) − ε L(−β h)) / (1 − 2 ε) with L(z) = −log σ(z); it is L(β h) − β h · ε / (1 − 2 ε), so ln 2 at
    π = π_ref. Unlike conservative DPO it pushes on for ever: it falls without bound as h grows, by ε / (1 − 2 ε) per
    unit of β h, and should go with an NLL term.

    beta: as in `step_dpo`. flip_rate: ε in [0, 0.5), one number or one per pair, typically 0.1.

    Source: Chowdhury, Kini & Natarajan 2024, arXiv 2403.00409, section 3.1 (the robust, unbiased loss).
    """
    return step_dpo(
        chosen, rejected, reference_chosen, reference_rejected, beta=beta, smoothing=-flip_rate / (1 - 2 * flip_rate)
    )


def ipo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float
) -> PreferenceLoss:
    """IPO: the gap h is regressed to a fixed target, so that certain preferences do not drive it to infinity.

    ℓ = (h − 1 / (2 β))², (1 / (2 β))² at π = π_ref. The scale of its gradient there is 1 / β.

    beta: > 0, the paper's τ; the target gap is 1 / (2 β) nats: 0.5 at β = 1.

    Source: Azar et al. 2023, arXiv 2310.12036, equation 17.
    """
    chosen_rewards, rejected_rewards = chosen - reference_chosen, rejected - reference_rejected
    losses = (chosen_rewards - rejected_rewards - 1 / (2 * beta)).square()
    return PreferenceLoss(losses, beta * chosen_rewards.detach(), beta * rejected_rewards.detach())


def hinge(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    delta: float = 1.0,
) -> PreferenceLoss:
    """Hinge (SLiC's loss on the implicit reward): ℓ = max(0, δ − β h); δ at π = π_ref, 0 once β h reaches δ.

    beta:  > 0, as in `step_dpo`. delta: > 0, the margin asked for; with zeros for both references, and δ in nats,
    this is SLiC's own calibration loss.

    Sources: Zhao et al. 2023, arXiv 2305.10425, section 2 (SLiC-HF's rank calibration loss; equation 4 is it with its
    cross-entropy regulariser); Liu et al. 2023, arXiv 2309.06657 (RSO: the loss "hinge-norm", L_hinge-norm, with the
    reference; its γ is β here).
    """
    chosen_rewards = beta * (chosen - reference_chosen)
    rejected_rewards = beta * (rejected - reference_rejected)
    losses = F.relu(delta - (chosen_rewards - rejected_rewards))
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def odpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    offset: Tensor | float,
) -> PreferenceLoss:
    """DPO with an offset: the better the chosen step is said to be, the wider the gap asked for.

    ℓ = −log σ(β h − Δ); log(1 + e^Δ) at π = π_ref.

    beta: as in `step_dpo`. offset: Δ ≥ 0, one number or one per pair, in units of β h: an increasing function of the
    gap in value; here the gap in Q itself, scaled (the paper's default is the logarithm of a gap in score).

    Source: Amini, Vieira & Cotterell 2024, arXiv 2402.10571, the section "DPO with an Offset" (L^ODPO = −E log σ(r̂_w −
    r̂_l − Δ_r), Δ_r = α f(score_w − score_l)).
    """
    chosen_rewards = beta * (chosen - reference_chosen)
    rejected_rewards = beta * (rejected - reference_rejected)
    losses = -F.logsigmoid(chosen_rewards - rejected_rewards - offset)
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def mmpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    margin: Tensor,
    gamma: float,
) -> PreferenceLoss:
    """Margin matching: the label is the Bradley-Terry probability of the pair's margin in value.

    ℓ = −p log σ(β h) − (1 − p) log σ(−β h), p = σ(γ m). ln 2 at π = π_ref, least at β h = γ m.

    beta: as in `step_dpo`. margin: m ≥ 0, the gap in value. gamma: γ > 0, nats of implicit reward per unit of value.

    Source: Kim et al. 2024, arXiv 2410.03145, the section on MMPO (the soft target p = σ(γ m) of the Bradley–Terry
    model, and the cross-entropy to it with DPO's implicit reward).
    """
    return step_dpo(
        chosen,
        rejected,
        reference_chosen,
        reference_rejected,
        beta=beta,
        smoothing=torch.sigmoid(-gamma * margin),
    )


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    gamma: float,
) -> PreferenceLoss:
    """SimPO: the reward is the mean log-probability per token; there is no reference.

    ℓ = −log σ(β log π(y_w|s) / |y_w| − β log π(y_l|s) / |y_l| − γ).

    chosen_lengths, rejected_lengths: [pairs], tokens ≥ 1. beta: > 0, typically 2 to 10. gamma: ≥ 0, the target margin,
    typically 0.3 to 0.5 times β.

    Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
    """
    chosen_rewards = beta * length_normalised(chosen, chosen_lengths)
    rejected_rewards = beta * length_normalised(rejected, rejected_lengths)
    losses = -F.logsigmoid(chosen_rewards - rejected_rewards - gamma)
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def orpo(chosen: Tensor, rejected: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor) -> PreferenceLoss:
    """ORPO's odds-ratio term, to be added to the NLL of the chosen step (its weight is the paper's λ); no reference.

    ℓ = −log σ(log odds(y_w) − log odds(y_l)), odds(y) = P / (1 − P) with P the geometric mean of the token
    probabilities. ln 2 where both steps are equally likely per token.

    chosen_lengths, rejected_lengths: [pairs], tokens ≥ 1. The rewards returned are the log odds.

    Source: Hong, Lee & Thorne 2024, arXiv 2403.07691, equations 4 to 7.
    """
    chosen_odds, rejected_odds = _log_odds(chosen, chosen_lengths), _log_odds(rejected, rejected_lengths)
    losses = -F.logsigmoid(chosen_odds - rejected_odds)
    return PreferenceLoss(losses, chosen_odds.detach(), rejected_odds.detach())


def _log_odds(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """log(P / (1 − P)) of P = exp(mean log-probability)."""
    # At P = 1 the odds are infinite. Closer to 1 than the dtype can tell, more odds are no evidence of anything.
    mean = length_normalised(logprobs, lengths).clamp(max=-torch.finfo(logprobs.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))

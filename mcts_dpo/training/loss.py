"""Computes the loss of a forward pass from the scores of its steps, and the figures of the log.

In: the scores of one pass, and its rows' targets. Out: the pass's part of the update's loss, and sums for the log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.data.batches import Batch
from mcts_dpo.training.data.collate import Targets, TrainingData
from mcts_dpo.training.data.packing import Packed
from mcts_dpo.training.logprobs import Scores
from mcts_dpo.training.objectives.base import BetaSettings, LossSettings, ObjectiveSettings, ReferenceSettings, Steps
from mcts_dpo.training.objectives.common import length_normalised, negative_log_likelihood, weighted_mean
from mcts_dpo.training.objectives.registry import objective_named


@dataclass(frozen=True, slots=True)
class Totals:
    """What the sums over one update's forward passes are divided by.

    rows: pairs, lists or solutions; weight: Σ of their weights; imitation: Σ of token weights in the NLL (all > 0);
    step_tokens: tokens of the steps.
    """

    rows: int
    weight: float
    imitation: float
    step_tokens: int


def totals(training_data: TrainingData, rows: NDArray[np.int64]) -> Totals:
    """The totals over the given rows."""
    data, which = training_data.sequences, training_data.sequences.of_rows(rows)
    scored, steps = data.scored_tokens(which), data.step_tokens(which)
    return Totals(
        len(rows), float(training_data.weight[rows].sum()), float(scored @ data.imitation[which]), int(steps.sum())
    )


def names(settings: ObjectiveSettings) -> tuple[str, ...]:
    """The figures that `loss_of` returns for an objective, in order.

    All are means over the update's rows, unweighted; nll and preference_loss use the weights of the training. Of a
    list, the chosen step is the best sibling and the rejected one the worst.

    chosen_logprob, rejected_logprob: nats, summed over the step.
    chosen_displacement, rejected_displacement: nats above the start: the reference's log-probability, or without a
        reference the one that the table holds of the policy that sampled the steps.
    accuracy: share of rows whose chosen step has risen more than the rejected one (a tie counts half).
    margin: β · h, the difference of the two displacements times beta.
    kl: nats per token by which the rows' steps are below the start. Where the start sampled them, it estimates
        KL(π_start ‖ π).
    """
    objective = objective_named(settings.kind)
    if objective.table == "solutions":
        return ("loss", "nll")
    return (
        "loss",
        "nll",
        *(() if objective.losses is None else ("preference_loss",)),
        "chosen_logprob",
        "rejected_logprob",
        "chosen_displacement",
        "rejected_displacement",
        "accuracy",
        "margin",
        "kl",
    )


def loss_of(
    scores: Scores,
    batch: Batch | Packed,
    targets: Targets,
    reference: Tensor | None,
    total: Totals,
    settings: ObjectiveSettings,
) -> tuple[Tensor, Tensor]:
    """One forward pass's part of the update's loss and of its figures. Summed over all passes, both are the update's.

    Args:
        targets: of the pass's rows. Without a reference they must have the steps' "start", for the figures alone.
        reference: [B] log-probabilities of the steps under the reference; None unless the objective needs it.
        settings: the objective's.

    Returns: a scalar to differentiate, and [len(names(settings))] figures, detached. The scalar is nll_weight · NLL +
    preference_weight · ℓ (`LossSettings`), or the NLL alone where the objective has no ℓ.
    """
    nll = negative_log_likelihood(scores.tokens, batch.imitation, total.imitation)
    if objective_named(settings.kind).table == "solutions":
        return nll, torch.stack([nll, nll]).detach()
    parts = [nll, nll]
    if isinstance(settings, LossSettings):
        value = weighted_mean(_losses(scores, reference, targets, settings), targets.weight, total.weight)
        parts = [settings.nll_weight * nll + settings.preference_weight * value, nll, value]
    start = targets.step_columns["start"].to(scores.steps.dtype) if reference is None else reference
    with torch.no_grad():
        return parts[0], torch.cat([torch.stack(parts), _figures(scores.steps, start, targets, total, settings)])


def _losses(scores: Scores, reference: Tensor | None, targets: Targets, settings: LossSettings) -> Tensor:
    """[R] the objective's ℓ."""
    objective, policy = objective_named(settings.kind), scores.steps
    if objective.needs_reference and reference is None:
        raise ValueError(f"{settings.kind} needs the reference's log-probabilities")
    if isinstance(settings, ReferenceSettings) and settings.length_normalised:
        policy = length_normalised(policy, targets.lengths)
        reference = None if reference is None else length_normalised(reference, targets.lengths)
    assert objective.losses is not None
    return objective.losses(Steps(policy, reference, scores.means, targets), settings)


def _figures(steps: Tensor, start: Tensor, targets: Targets, total: Totals, settings: ObjectiveSettings) -> Tensor:
    """The figures from chosen_logprob on, of this pass; see `names`."""
    first, last = targets.first, targets.last
    rise = steps - start
    gap = rise[first] - rise[last]
    beta = settings.beta if isinstance(settings, BetaSettings) else 1.0
    # sign is 1, 0 or −1: (sign + 1) / 2 counts a tie, such as every pair before the first update, as half.
    sums = [steps[first], steps[last], rise[first], rise[last], (gap.sign() + 1) / 2, beta * gap]
    return torch.cat([torch.stack(sums).sum(1) / total.rows, -rise.sum()[None] / total.step_tokens])

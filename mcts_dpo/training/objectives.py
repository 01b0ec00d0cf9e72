"""What each objective learns from: rows of the data set as scored sequences, and a scored batch as a loss.

In: `Pairs` or `Solutions`; later, the scores of one forward pass. Out: `Lessons`; later, that pass's share of
the update's loss, and sums for the log. Knows no optimiser and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.files import InputError
from mcts_dpo.preferences.dataset import Pairs, Solutions
from mcts_dpo.training.batches import Batch, Sequences, sequences
from mcts_dpo.training.logprobs import Scores
from mcts_dpo.training.losses import negative_log_likelihood, step_dpo, weighted_mean
from mcts_dpo.training.settings import Objective, TrainingSettings


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows to learn from.

    sequences: what is scored (two sequences per row for step_dpo, else one).
    weight:    [rows] float64 > 0, a row's share in every mean.
    smoothing: [rows] float64 in [0, 0.5).
    tokenizer: digest of the tokenizer that the ids belong to.
    source:    the file or kind of table, for messages.
    """

    sequences: Sequences
    weight: NDArray[np.float64]
    smoothing: NDArray[np.float64]
    tokenizer: str
    source: str


def load_lessons(data: Path | Pairs | Solutions, settings: TrainingSettings) -> Lessons:
    """The rows of a table (or of its file) as the objective learns from them.

    Raises InputError for a file that is not the objective's kind of table, and for a table without rows.
    """
    wanted = Solutions if settings.objective == "rft" else Pairs
    source = wanted.what if isinstance(data, _TABLES) else str(data)
    table = data if isinstance(data, _TABLES) else wanted.load(Path(data))
    if not isinstance(table, wanted):
        raise InputError(f"training.objective: {settings.objective!r} learns from {wanted.what}, not {table.what}")
    if not len(table):
        raise InputError(f"{source}: no rows; there is nothing to learn from")
    if isinstance(table, Solutions):
        scored, smoothing = _solutions(table), np.zeros(len(table))
    else:
        scored, smoothing = _pairs(table, settings), table.numbers("smoothing")
    return Lessons(scored, table.numbers("weight"), smoothing, table.tokenizer, source)


_TABLES = (Pairs, Solutions)


def _solutions(table: Solutions) -> Sequences:
    prompt, completion = table.tokens("prompt_tokens"), table.tokens("completion_tokens")
    parts = [(prompt[row], completion[row]) for row in range(len(table))]
    return sequences(parts, prompt.lengths, prompt.lengths, table.numbers("weight"))


def _pairs(table: Pairs, settings: TrainingSettings) -> Sequences:
    prompt, prefix = table.tokens("prompt_tokens"), table.tokens("prefix_tokens")
    chosen, rejected = table.tokens("chosen_tokens"), table.tokens("rejected_tokens")
    weight = table.numbers("weight")
    step_from = prompt.lengths + prefix.lengths
    if settings.objective == "step_rft":
        parts = [(prompt[row], prefix[row], chosen[row]) for row in range(len(table))]
        return sequences(parts, step_from, step_from, weight)
    parts = [(prompt[row], prefix[row], step[row]) for row in range(len(table)) for step in (chosen, rejected)]
    # The chosen sequence serves both terms: its steps so far are scored too when they are to be imitated.
    solution_from = prompt.lengths if settings.nll_weight else step_from
    scored_from = np.stack([solution_from, step_from], axis=1).ravel()
    imitation = np.stack([weight, np.zeros_like(weight)], axis=1).ravel()
    return sequences(parts, scored_from, np.repeat(step_from, 2), imitation, per_row=2)


@dataclass(frozen=True, slots=True)
class Totals:
    """What the sums over one update's forward passes are divided by.

    rows: pairs or solutions; weight: Σ of their weights; imitation: Σ of token weights in the NLL (all > 0);
    step_tokens: tokens of the steps.
    """

    rows: int
    weight: float
    imitation: float
    step_tokens: int


def totals(lessons: Lessons, rows: NDArray[np.int64]) -> Totals:
    """The totals over the given rows."""
    data, which = lessons.sequences, lessons.sequences.of_rows(rows)
    scored, steps = data.scored_tokens(which), data.step_tokens(which)
    return Totals(len(rows), float(lessons.weight[rows].sum()), float(scored @ data.imitation[which]), int(steps.sum()))


def names(objective: Objective) -> tuple[str, ...]:
    """The figures that `loss_of` returns for this objective, in order.

    Means over the update's rows, unweighted; nll and preference_loss with the weights that they are trained with.
    chosen_logprob, rejected_logprob: nats, summed over the step. chosen_displacement, rejected_displacement: nats
    above the start. accuracy: share of pairs whose chosen step's implicit reward is above the rejected's (a tie: half).
    margin: β · h. kl: nats per token, log π_ref − log π over the tokens of both steps: where the reference sampled
    them, the estimate of KL(π_ref ‖ π).
    """
    if objective == "rft":
        return ("loss", "nll")
    if objective == "step_rft":
        return ("loss", "nll", "chosen_logprob")
    return (
        "loss",
        "nll",
        "preference_loss",
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
    batch: Batch,
    reference: Tensor | None,
    weight: Tensor,
    smoothing: Tensor,
    total: Totals,
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor]:
    """One forward pass's share of the update's loss and of its figures: over all passes, both add up to the update's.

    reference: [B], step log-probabilities under the reference (step_dpo only); weight, smoothing: [rows of the pass].
    Returns a scalar to differentiate, and [len(names(objective))] detached.

    total = nll_weight · NLL + preference_weight · ℓ_pref: the sum of Pang et al. 2024, arXiv 2404.19733, equation 1,
    on steps; the NLL alone for the other objectives.
    """
    nll = negative_log_likelihood(scores.tokens, batch.imitation, total.imitation)
    if settings.objective == "rft":
        return nll, torch.stack([nll, nll]).detach()
    if settings.objective == "step_rft":
        return nll, torch.stack([nll, nll, scores.steps.sum() / total.rows]).detach()
    if reference is None:
        raise ValueError("step_dpo needs the reference's log-probabilities")
    chosen, rejected = scores.steps.view(-1, 2).unbind(1)
    reference_chosen, reference_rejected = reference.view(-1, 2).unbind(1)
    losses, chosen_rewards, rejected_rewards = step_dpo(
        chosen, rejected, reference_chosen, reference_rejected, beta=settings.beta, smoothing=smoothing.to(chosen.dtype)
    )
    preference = weighted_mean(losses, weight, total.weight)
    loss = settings.nll_weight * nll + settings.preference_weight * preference
    with torch.no_grad():
        margins = chosen_rewards - rejected_rewards
        # sign is 1, 0 or −1: (sign + 1) / 2 counts a tie, such as every pair before the first update, as half.
        sums = [chosen, rejected, chosen - reference_chosen, rejected - reference_rejected, (margins.sign() + 1) / 2]
        means = torch.stack([*sums, margins]).sum(1) / total.rows
        kl = (reference - scores.steps).sum() / total.step_tokens
        figures = torch.cat([torch.stack([loss, nll, preference]), means, kl[None]])
    return loss, figures

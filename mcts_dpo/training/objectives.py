"""From a scored batch to the number that is differentiated, for every objective, and the figures of the log.

In: the scores of one forward pass and what its rows are to teach. Out: that pass's share of the update's loss, and
sums for the log. An objective is an entry in a table of functions; knows no optimiser and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.training import losses
from mcts_dpo.training.data.batches import Batch
from mcts_dpo.training.data.collate import Lessons, Targets
from mcts_dpo.training.data.packing import Packed
from mcts_dpo.training.logprobs import Scores
from mcts_dpo.training.settings import REGISTERED, BuiltIn, Objective, TrainingSettings

PREFERENCE_WEIGHTS: dict[Objective, float] = {
    "step_dpo": 0.02,
    "robust_dpo": 0.02,
    "odpo": 0.02,
    "mmpo": 0.02,
    "lipo": 0.02,
    "tpo": 0.02,
    "ipo": 0.0025,
    "hinge": 0.01,
    "kto": 0.04,
    "simpo": 0.1,
    "orpo": 0.1,
    "sibling_distillation": 0.1,
    "tree_policy_gradient": 0.05,
}
"""What ℓ is weighed with where `preference_weight` is null. DPO's slope at the start is β / 2 on either step: 0.02 is
the value that small policies were tried with. Hinge's slope is twice that, KTO's half, IPO's 1 / β. SimPO's and ORPO's
are divided by the step's tokens (0.1 is also ORPO's own λ). Distillation is likelihood: 0.1 on a step's sum is as much
as the NLL's 1 on the mean of ten tokens."""


BETAS: Mapping[Objective, float] = {"ipo": 0.25}
"""β where `beta` is null; 1 for all others. IPO pulls the gap towards 1 / (2 β) nats from both sides: 2 nats, about
where likelihood alone leaves it on small policies; at 0.5 nats (β = 1) it held the policy back there."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of one pass as the losses see them.

    policy, reference: [B] log-probabilities, per token where `length_normalised` asks for it; reference: None where the
    objective has none. means: [B, width] mean states, None unless `wants_means`. targets: their rows. settings: the
    loss's.
    """

    policy: Tensor
    reference: Tensor | None
    means: Tensor | None
    targets: Targets
    settings: TrainingSettings

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chosen, rejected, and the same under the reference: [R] each."""
        assert self.reference is not None
        first, last = self.targets.first, self.targets.last
        return self.policy[first], self.policy[last], self.reference[first], self.reference[last]

    @property
    def likelihoods(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chosen, rejected, and the tokens of each: [R] each."""
        first, last, lengths = self.targets.first, self.targets.last, self.targets.lengths
        return self.policy[first], self.policy[last], lengths[first], lengths[last]

    @property
    def lists(self) -> tuple[Tensor, Tensor]:
        """[R, width] log-probabilities of policy and reference."""
        assert self.reference is not None
        return self.policy[self.targets.places], self.reference[self.targets.places]

    def row(self, name: str) -> Tensor:
        """[R], a column of the rows in the policy's dtype."""
        return self.targets.of_row[name].to(self.policy.dtype)

    def siblings(self, name: str) -> Tensor:
        """[R, width], a column of the steps in the policy's dtype."""
        return self.targets.of_step[name].to(self.policy.dtype)[self.targets.places]


def _kto(steps: _Steps) -> Tensor:
    """[R]: each list's mean over what was sampled; siblings exactly at V are neither good nor bad, and left out."""
    policy, reference = steps.lists
    present, advantage = steps.targets.present, steps.siblings("advantage")
    drift = losses.sibling_kl(policy, reference, steps.siblings("count"), present)
    found = losses.kto(
        policy,
        reference,
        advantage > 0,
        drift[:, None],
        beta=beta_of(steps.settings),
        desirable_weight=steps.settings.desirable_weight,
        undesirable_weight=steps.settings.undesirable_weight,
    )
    return (losses.shares(steps.siblings("count"), present) * (advantage != 0) * found).sum(dim=1)


def _ranking(steps: _Steps, weights: Tensor | None) -> Tensor:
    policy, reference = steps.lists
    value, present = steps.siblings("value"), steps.targets.present
    return losses.lambda_loss(policy, reference, value, present, beta=beta_of(steps.settings), step_weights=weights)


def _likeness(steps: _Steps) -> Tensor:
    """[R, width] in [−1, 1]: the cosine of each sibling's mean state to that of its list's best."""
    assert steps.means is not None
    found = F.cosine_similarity(steps.means[steps.targets.places], steps.means[steps.targets.first][:, None], dim=-1)
    return found.to(steps.policy.dtype)


def _distillation(steps: _Steps) -> Tensor:
    return losses.sibling_distillation(
        steps.policy[steps.targets.places],
        steps.siblings("value"),
        steps.siblings("count"),
        steps.targets.present,
        tau=steps.settings.temperature,
        renormalise=steps.settings.renormalise,
    )


def _policy_gradient(steps: _Steps) -> Tensor:
    policy, reference = steps.lists
    return losses.tree_policy_gradient(
        policy,
        reference,
        steps.siblings("advantage"),
        steps.siblings("count"),
        steps.targets.present,
        advantage_clip=steps.settings.advantage_clip,
        ratio_clip=steps.settings.ratio_clip,
    )


_WITH_REFERENCE: dict[Objective, Callable[[_Steps], Tensor]] = {
    "step_dpo": lambda s: losses.step_dpo(*s.pairs, beta=beta_of(s.settings), smoothing=s.row("smoothing")).losses,
    "robust_dpo": lambda s: (
        losses.robust_dpo(*s.pairs, beta=beta_of(s.settings), flip_rate=s.settings.flip_rate).losses
    ),
    "ipo": lambda s: losses.ipo(*s.pairs, beta=beta_of(s.settings)).losses,
    "hinge": lambda s: losses.hinge(*s.pairs, beta=beta_of(s.settings), delta=s.settings.target_margin).losses,
    "odpo": lambda s: (
        losses.odpo(*s.pairs, beta=beta_of(s.settings), offset=s.settings.margin_scale * s.row("margin")).losses
    ),
    "mmpo": lambda s: (
        losses.mmpo(*s.pairs, beta=beta_of(s.settings), margin=s.row("margin"), gamma=s.settings.margin_scale).losses
    ),
    "kto": _kto,
    "lipo": lambda s: _ranking(s, None),
    "tpo": lambda s: _ranking(s, 1 + _likeness(s)),
    "tree_policy_gradient": _policy_gradient,
}
_WITHOUT_REFERENCE: Mapping[Objective, Callable[[_Steps], Tensor]] = {
    "simpo": lambda s: losses.simpo(*s.likelihoods, beta=beta_of(s.settings), gamma=s.settings.target_margin).losses,
    "orpo": lambda s: losses.orpo(*s.likelihoods).losses,
    "sibling_distillation": _distillation,
}
_OWN_LENGTHS = ("simpo", "orpo", "sibling_distillation", "tree_policy_gradient")
"""Objectives that `length_normalised` does not touch."""


_MODULES: dict[Objective, str] = {}


def register_objective(name: str, loss: Callable[..., Tensor], *, preference_weight: float = 0.02) -> None:
    """Add an objective over pairs, so that `training.objective` can name it.

    loss: called with chosen, rejected, reference_chosen, reference_rejected ([R] log-probabilities of the steps, nats)
          and beta; returns [R], what is lost on each pair.
    preference_weight: of it beside the NLL where the setting is null; see `PREFERENCE_WEIGHTS`.

    Raises ValueError for a name that is taken.
    """
    if name in get_args(BuiltIn) or name in REGISTERED:
        raise ValueError(f"the objective {name!r} is there already")
    REGISTERED.add(name)
    _MODULES[name] = loss.__module__
    PREFERENCE_WEIGHTS[name] = preference_weight
    _WITH_REFERENCE[name] = lambda steps: loss(*steps.pairs, beta=beta_of(steps.settings))


def module_of(objective: Objective) -> str | None:
    """The module that another process must import to know the objective; None for one that is built in.

    Raises InputError for one that no other process can know: it was registered by a program, not by a module.
    """
    module = _MODULES.get(objective)
    if module == "__main__":
        raise InputError(
            f"training.objective: {objective!r} was registered by the program that is running (accepted where several "
            "processes train: one that a module registers, see --with)"
        )
    return module


def needs_reference(objective: Objective) -> bool:
    """Whether `loss_of` wants the reference's log-probabilities."""
    return objective in _WITH_REFERENCE


def wants_means(objective: Objective) -> bool:
    """Whether `loss_of` wants the scores to hold the steps' mean states."""
    return objective == "tpo"


def beta_of(settings: TrainingSettings) -> float:
    """β: as set, or the objective's own."""
    return BETAS.get(settings.objective, 1.0) if settings.beta is None else settings.beta


def preference_weight(settings: TrainingSettings) -> float:
    """The weight of ℓ: as set, or the objective's own; 0 for likelihood alone."""
    if settings.objective in ("rft", "step_rft"):
        return 0.0
    return PREFERENCE_WEIGHTS[settings.objective] if settings.preference_weight is None else settings.preference_weight


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


def totals(lessons: Lessons, rows: NDArray[np.int64]) -> Totals:
    """The totals over the given rows."""
    data, which = lessons.sequences, lessons.sequences.of_rows(rows)
    scored, steps = data.scored_tokens(which), data.step_tokens(which)
    return Totals(len(rows), float(lessons.weight[rows].sum()), float(scored @ data.imitation[which]), int(steps.sum()))


def names(objective: Objective) -> tuple[str, ...]:
    """The figures that `loss_of` returns for this objective, in order.

    Means over the update's rows, unweighted; nll and preference_loss with the weights that they are trained with. Of a
    list, the chosen step is the best sibling and the rejected one the worst.
    chosen_logprob, rejected_logprob: nats, summed over the step. chosen_displacement, rejected_displacement: nats
    above the start: the reference's, or without one those that the table holds of the policy that sampled the steps.
    accuracy: share of rows whose chosen step has risen more than the rejected (a tie: half). margin: β · h, their
    difference times beta. kl: nats per token by which the rows' steps are below the start: where it sampled them, the
    estimate of KL(π_start ‖ π).
    """
    if objective == "rft":
        return ("loss", "nll")
    return (
        "loss",
        "nll",
        *(() if objective == "step_rft" else ("preference_loss",)),
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
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor]:
    """One forward pass's share of the update's loss and of its figures: over all passes, both add up to the update's.

    targets: of the pass's rows; without a reference they must know the steps' "start", for the figures alone.
    reference: [B], step log-probabilities under the reference (None unless `needs_reference`). Returns a scalar to
    differentiate, and [len(names(objective))] detached.

    total = nll_weight · NLL + preference_weight · ℓ: the sum of Pang et al. 2024, arXiv 2404.19733, equation 1, on
    steps; the NLL alone for rft and step_rft.
    """
    nll = losses.negative_log_likelihood(scores.tokens, batch.imitation, total.imitation)
    if settings.objective == "rft":
        return nll, torch.stack([nll, nll]).detach()
    start = targets.of_step["start"].to(scores.steps.dtype) if reference is None else reference
    if settings.objective == "step_rft":
        parts = [nll, nll]
    else:
        value = losses.weighted_mean(_losses(scores, reference, targets, settings), targets.weight, total.weight)
        loss = settings.nll_weight * nll + preference_weight(settings) * value
        parts = [loss, nll, value]
    with torch.no_grad():
        return parts[0], torch.cat([torch.stack(parts), _watched(scores.steps, start, targets, total, settings)])


def _losses(scores: Scores, reference: Tensor | None, targets: Targets, settings: TrainingSettings) -> Tensor:
    """[R] the objective's ℓ."""
    objective, steps = settings.objective, scores.steps
    if needs_reference(objective) and reference is None:
        raise ValueError(f"{objective} needs the reference's log-probabilities")
    if settings.length_normalised and objective not in _OWN_LENGTHS:
        steps = losses.length_normalised(steps, targets.lengths)
        reference = None if reference is None else losses.length_normalised(reference, targets.lengths)
    function = (_WITH_REFERENCE if needs_reference(objective) else _WITHOUT_REFERENCE)[objective]
    return function(_Steps(steps, reference, scores.means, targets, settings))


def _watched(steps: Tensor, start: Tensor, targets: Targets, total: Totals, settings: TrainingSettings) -> Tensor:
    """The figures from chosen_logprob on, of this pass; see `names`."""
    first, last = targets.first, targets.last
    rise = steps - start
    gap = rise[first] - rise[last]
    # sign is 1, 0 or −1: (sign + 1) / 2 counts a tie, such as every pair before the first update, as half.
    sums = [steps[first], steps[last], rise[first], rise[last], (gap.sign() + 1) / 2, beta_of(settings) * gap]
    return torch.cat([torch.stack(sums).sum(1) / total.rows, -rise.sum()[None] / total.step_tokens])

"""Trains a policy on its objective and on questions about its own steps, in one training.

In: the task of the objective, and questions as `judgements` makes them. Out: one task for the loop. The loss of an
update is (1 − share) times the objective's loss on the update's rows of data, plus share times the mean NLL of yes or
no on its questions, so that neither hides the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.objectives.registry import objective_settings
from mcts_dpo.training.tasks import MicroBatchLoss, PolicyTrainingTask, Rows


@dataclass(frozen=True, slots=True)
class MixedTask:
    """Rows of the objective, and after them the questions. See `tasks.TrainingTask`.

    policy:    the objective's task.
    questions: of the questions, in the order in which they are asked; each row is one of `asked`.
    asked:     [questions] int64: which question each row asks.
    share:     of the questions among all rows, and in the loss; in (0, 1).
    """

    policy: PolicyTrainingTask
    questions: PolicyTrainingTask
    asked: NDArray[np.int64]
    share: float

    @property
    def rows(self) -> int:
        """Of the objective and questions."""
        return self.policy.rows + len(self.asked)

    @property
    def sequences(self) -> int:
        """Of the objective: those that the reference scores."""
        return self.policy.sequences

    @property
    def trees(self) -> NDArray[np.int64] | None:
        """Rows under one prompt; questions about one tree."""
        known, asked = self.policy.trees, self.questions.trees
        if known is None or asked is None:
            return None
        return np.concatenate([known, known.max(initial=-1) + 1 + asked[self.asked]])

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the objective, and the NLL of yes or no in nats."""
        return (*self.policy.names, "self_evaluation")

    @property
    def needs_reference(self) -> bool:
        """As the objective does."""
        return self.policy.needs_reference

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """See `TrainingTask`. No pass has rows of both kinds."""
        own, asked = self._parted(rows)
        found = self.policy.passes(own, max_tokens) if len(own) else []
        if not len(asked):
            return found
        which = self.asked[asked]
        # A question that is asked twice in one update is in one pass twice.
        parts = self.questions.passes(np.unique(which), max_tokens)
        return [*found, *(self.policy.rows + asked[np.isin(which, part)] for part in parts)]

    def longest(self, rows: Rows) -> int:
        """See `TrainingTask`."""
        own, asked = self._parted(rows)
        parts = [self.policy.longest(own)] if len(own) else []
        return max([*parts, self.questions.longest(self.asked[asked])] if len(asked) else parts)

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """See `TrainingTask`. Questions have none."""
        own, _ = self._parted(rows)
        if len(own):
            return self.policy.reference(model, rows=own)
        one = next(model.parameters())
        none = torch.empty(0, dtype=torch.promote_types(one.dtype, torch.float32), device=one.device)
        return none.long(), none, 0

    def micro_batch_loss(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> MicroBatchLoss:
        """See `TrainingTask`."""
        own, asked = self._parted(rows)
        all_own, all_asked = self._parted(update)
        if len(own):
            part = self.policy.micro_batch_loss(model, rows=own, update=all_own, reference=reference)
            loss, figures = (1 - self.share) * part.loss, [part.figures[1:], part.figures.new_zeros(1)]
        else:
            part = self.questions.micro_batch_loss(
                model, rows=self.asked[asked], update=self.asked[all_asked], reference=None
            )
            loss = self.share * part.loss
            figures = [part.figures.new_zeros(len(self.policy.names) - 1), part.figures[:1]]
        return part._replace(loss=loss, figures=torch.cat([loss.detach()[None], *figures]))

    def _parted(self, rows: Rows) -> tuple[Rows, Rows]:
        """The objective's rows, and the questions' as indices into `asked`."""
        own = rows < self.policy.rows
        return rows[own], rows[~own] - self.policy.rows


def mixed(policy: PolicyTrainingTask, questions: TrainingData) -> MixedTask:
    """The objective's task with questions, as many as `training.self_evaluation.share` asks for.

    Each question is asked as often as the others, up to one; which are asked once more depends on the seed.
    """
    settings = policy.settings
    share = settings.self_evaluation.share
    count = max(1, round(policy.rows * share / (1 - share)))
    pool = questions.sequences.rows
    generator = np.random.default_rng([settings.seed, 1])
    asked = np.concatenate([generator.permutation(pool) for _ in range(-(-count // pool))])[:count]
    own = settings.model_copy(update={"objective": objective_settings("rft")})
    return MixedTask(policy, replace(policy, training_data=questions, settings=own), asked.astype(np.int64), share)

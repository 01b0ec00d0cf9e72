"""Says what a training run computes: which rows share a forward pass, and each pass's part of the update's loss.

In: training data. Out: what the loop (`loop.py`) needs: passes, losses, figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.data.batches import Batch, forward_passes, make_batch
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.data.packing import Packed, pack, packed_passes
from mcts_dpo.training.logprobs import score
from mcts_dpo.training.loss import loss_of, names, totals
from mcts_dpo.training.objectives.base import Objective
from mcts_dpo.training.objectives.registry import objective_named
from mcts_dpo.training.settings import TrainingSettings

Rows = NDArray[np.int64]


class MicroBatchLoss(NamedTuple):
    """What one forward pass adds to an update.

    loss:      scalar; summed over all passes of an update it is the update's loss.
    figures:   [names], detached; summed over all passes, they are the update's figures.
    tokens:    real tokens that went through the model; a token that sequences share in a pack counts once.
    positions: computed tokens, padding included.
    scored:    tokens whose log-probability was computed for the loss.
    """

    loss: Tensor
    figures: Tensor
    tokens: int
    positions: int
    scored: int


class TrainingTask(Protocol):
    """What the loop needs of a policy, a value model or another model that is trained.

    `micro_batch_loss` gets the numbers that `reference` returned for the model at its start, if the task needs them:
    one per sequence, NaN for those that no update sees.
    """

    @property
    def rows(self) -> int:
        """How many rows there are to learn from."""
        ...

    @property
    def sequences(self) -> int:
        """How many sequences the rows have."""
        ...

    @property
    def trees(self) -> NDArray[np.int64] | None:
        """[rows] int64: rows with the same number are kept in the same update where possible. None: in any order."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the figures, in order."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with the model at its start."""
        ...

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """The rows of one update, cut into forward passes of at most `max_tokens` tokens (or one row)."""
        ...

    def longest(self, rows: Rows) -> int:
        """Tokens of the longest sequence of the rows."""
        ...

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """The reference's numbers for these rows: indices in [0, sequences), values, and the tokens that were read."""
        ...

    def micro_batch_loss(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> MicroBatchLoss:
        """The loss of a pass over `rows`, a part of `update`."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyTrainingTask:
    """A policy that learns from pairs, lists of siblings or solutions, as `settings.objective` says."""

    training_data: TrainingData
    settings: TrainingSettings
    device: torch.device

    @property
    def rows(self) -> int:
        """The number of pairs, lists or solutions."""
        return self.training_data.sequences.rows

    @property
    def sequences(self) -> int:
        """The number of sequences of all rows."""
        return len(self.training_data.sequences)

    @property
    def trees(self) -> NDArray[np.int64] | None:
        """The tree of each row, if rows are packed. A pack computes the shared tokens of one tree once."""
        return self.training_data.sequences.tree if self.settings.data.packing else None

    @property
    def names(self) -> tuple[str, ...]:
        """See `loss.names`."""
        return names(self.settings.objective)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss, or a figure that the table does not hold, compares with the policy at its start."""
        return self._objective.needs_reference or self._start_unknown

    @property
    def _objective(self) -> Objective:
        return objective_named(self.settings.objective.kind)

    @property
    def _start_unknown(self) -> bool:
        return self._objective.table != "solutions" and "start" not in self.training_data.step_columns

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """See `TrainingTask`."""
        divide = packed_passes if self.settings.data.packing else forward_passes
        return divide(self.training_data.sequences, rows, max_tokens)

    def longest(self, rows: Rows) -> int:
        """See `TrainingTask`."""
        data = self.training_data.sequences
        return int(data.lengths[data.of_rows(rows)].max())

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """Step log-probabilities. See `TrainingTask`."""
        which = self.training_data.sequences.of_rows(rows)
        batch, tokens = self._batch(which)
        return torch.from_numpy(which).to(self.device), score(model, batch).steps, tokens

    def micro_batch_loss(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> MicroBatchLoss:
        """See `TrainingTask`."""
        which = self.training_data.sequences.of_rows(rows)
        batch, tokens = self._batch(which)
        targets = self.training_data.targets(rows, self.device)
        start = None if reference is None else reference[torch.from_numpy(which)]
        if start is not None and not self._objective.needs_reference:
            targets, start = replace(targets, step_columns={**targets.step_columns, "start": start}), None
        loss, figures = loss_of(
            score(model, batch, means=self._objective.wants_means),
            batch,
            targets,
            start,
            totals(self.training_data, update),
            self.settings.objective,
        )
        return MicroBatchLoss(loss, figures, tokens, batch.input_ids.numel(), len(batch.targets))

    def _batch(self, which: Rows) -> tuple[Batch | Packed, int]:
        """The given sequences as one forward pass, and its real tokens."""
        data = self.training_data.sequences
        if self.settings.data.packing:
            packed = pack(data, which).to(self.device)
            return packed, packed.input_ids.numel()
        return make_batch(data, which).to(self.device), int(data.lengths[which].sum())

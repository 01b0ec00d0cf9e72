"""What one training run computes: its rows in forward passes, and each pass's share of the update's loss.

In: lessons. Out: what the loop in `trainer` needs to know of them, and nothing else. Knows no optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.data.batches import Batch, forward_passes, make_batch
from mcts_dpo.training.data.collate import Lessons
from mcts_dpo.training.data.packing import Packed, pack, packed_passes
from mcts_dpo.training.logprobs import score
from mcts_dpo.training.loss import loss_of, names, totals
from mcts_dpo.training.objectives.base import Objective
from mcts_dpo.training.objectives.registry import objective_named
from mcts_dpo.training.settings import TrainingSettings

Rows = NDArray[np.int64]


class Share(NamedTuple):
    """One forward pass's part of an update.

    loss:    scalar; over all passes of an update the parts add up to its loss.
    figures: [names], detached; they add up likewise.
    tokens:  real tokens that went through the model, a packed one once; positions: computed ones, padding included;
             scored: those whose log-probability was wanted.
    """

    loss: Tensor
    figures: Tensor
    tokens: int
    positions: int
    scored: int


class Task(Protocol):
    """What the loop knows of what is learned.

    `share` is given the numbers that `reference` returned when the model was as it starts, if it needs them: one per
    sequence, NaN for those that no update sees.
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
        """[rows] int64: rows with the same number are better off in the same update. None: no matter."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the figures, in order."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with the model as it starts."""
        ...

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """The rows of one update, cut into forward passes of at most `max_tokens` tokens (or one row)."""
        ...

    def longest(self, rows: Rows) -> int:
        """Tokens of the longest sequence of the rows."""
        ...

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """The reference's numbers of these rows: indices in [0, sequences), values, and tokens that it took."""
        ...

    def share(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> Share:
        """The loss of a pass over `rows`, a part of `update`."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyTask:
    """A policy that learns from pairs, lists of siblings or solutions, as `settings.objective` says."""

    lessons: Lessons
    settings: TrainingSettings
    device: torch.device

    @property
    def rows(self) -> int:
        """Pairs, lists or solutions."""
        return self.lessons.sequences.rows

    @property
    def sequences(self) -> int:
        """Of all rows."""
        return len(self.lessons.sequences)

    @property
    def trees(self) -> NDArray[np.int64] | None:
        """Rows under one prompt, which a pack computes once."""
        return self.lessons.sequences.tree if self.settings.data.packing else None

    @property
    def names(self) -> tuple[str, ...]:
        """See `objectives.names`."""
        return names(self.settings.objective)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with the policy as it starts, or nobody has told where the steps start."""
        return self._objective.needs_reference or self._start_unknown

    @property
    def _objective(self) -> Objective:
        return objective_named(self.settings.objective.kind)

    @property
    def _start_unknown(self) -> bool:
        return self._objective.table != "solutions" and "start" not in self.lessons.of_step

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """See `Task`."""
        divide = packed_passes if self.settings.data.packing else forward_passes
        return divide(self.lessons.sequences, rows, max_tokens)

    def longest(self, rows: Rows) -> int:
        """See `Task`."""
        data = self.lessons.sequences
        return int(data.lengths[data.of_rows(rows)].max())

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """Step log-probabilities. See `Task`."""
        which = self.lessons.sequences.of_rows(rows)
        batch, tokens = self._batch(which)
        return torch.from_numpy(which).to(self.device), score(model, batch).steps, tokens

    def share(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> Share:
        """See `Task`."""
        which = self.lessons.sequences.of_rows(rows)
        batch, tokens = self._batch(which)
        targets = self.lessons.targets(rows, self.device)
        start = None if reference is None else reference[torch.from_numpy(which)]
        if start is not None and not self._objective.needs_reference:
            targets, start = replace(targets, of_step={**targets.of_step, "start": start}), None
        loss, figures = loss_of(
            score(model, batch, means=self._objective.wants_means),
            batch,
            targets,
            start,
            totals(self.lessons, update),
            self.settings.objective,
        )
        return Share(loss, figures, tokens, batch.input_ids.numel(), len(batch.targets))

    def _batch(self, which: Rows) -> tuple[Batch | Packed, int]:
        """The given sequences as one forward pass, and its real tokens."""
        data = self.lessons.sequences
        if self.settings.data.packing:
            packed = pack(data, which).to(self.device)
            return packed, packed.input_ids.numel()
        return make_batch(data, which).to(self.device), int(data.lengths[which].sum())

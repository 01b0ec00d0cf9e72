"""What each objective learns from: the rows of a table as scored sequences, with the table's columns.

In: `Pairs`, `Siblings` or `Solutions`. Out: `TrainingData`, and for one forward pass `Targets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions
from mcts_dpo.preferences.typed_table import JaggedArray, TypedTable
from mcts_dpo.training.data.batches import Sequences, sequences
from mcts_dpo.training.objectives.base import LossSettings, ObjectiveSettings
from mcts_dpo.training.objectives.registry import objective_named

Table = Pairs | Siblings | Solutions


_KINDS: dict[str, type[Pairs] | type[Siblings] | type[Solutions]] = {
    kind.what: kind for kind in (Pairs, Siblings, Solutions)
}


def table_of(objective: str) -> type[Pairs] | type[Siblings] | type[Solutions]:
    """The kind of table that the objective of this name learns from; its file in a round is `<kind.what>.parquet`."""
    return _KINDS[objective_named(objective).table]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Rows to learn from: pairs, solutions or lists of siblings.

    sequences: what is scored: of a pair the chosen sequence, then the rejected; of a list its siblings, best first.
    weight:    [rows] float64 > 0, a row's share in every mean.
    row_columns: by name, [rows] float64: "smoothing" in [0, 0.5) and "margin" (the gap in Q) of a pair.
    step_columns: by name, [sequences] float64: "start", the step's log-probability under the policy that sampled it, of
               pairs and lists (absent if the table does not have it; then the trainer measures it); "value" (Q'),
               "advantage" (Q − V of the parent) and "count" (samples ≥ 1) of a sibling.
    tokenizer: digest of the tokenizer that the ids belong to.
    source:    the file or kind of table, for messages.
    """

    sequences: Sequences
    weight: NDArray[np.float64]
    row_columns: Mapping[str, NDArray[np.float64]]
    step_columns: Mapping[str, NDArray[np.float64]]
    tokenizer: str
    source: str

    def targets(self, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> Targets:
        """The targets of the given rows ([n] int64), in the order of a forward pass over them."""
        data, which = self.sequences, self.sequences.of_rows(rows)
        sizes = data.row_offsets[rows + 1] - data.row_offsets[rows]
        index = np.arange(int(sizes.max(initial=0)))
        present = index < sizes[:, None]
        first = np.cumsum(sizes) - sizes
        indices = np.where(present, first[:, None] + index, first[:, None])

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        return Targets(
            weight=tensor(self.weight[rows]),
            indices=tensor(indices),
            present=tensor(present),
            last=tensor(first + sizes - 1),
            lengths=tensor(data.step_tokens(which)),
            row_columns={name: tensor(column[rows]) for name, column in self.row_columns.items()},
            step_columns={name: tensor(column[which]) for name, column in self.step_columns.items()},
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of R rows with B sequences in one forward pass.

    weight:  [R] float64.
    indices: [R, width] int64 in [0, B): each row's sequences; a row with fewer than `width` repeats its first.
    present: [R, width] bool: which of the indices are real.
    last:    [R] int64 in [0, B): each row's last sequence: a pair's rejected step, a list's worst.
    lengths: [B] int64, scored tokens of each step.
    row_columns, step_columns: [R] and [B] float64 columns by name; see `TrainingData`.
    """

    weight: Tensor
    indices: Tensor
    present: Tensor
    last: Tensor
    lengths: Tensor
    row_columns: Mapping[str, Tensor]
    step_columns: Mapping[str, Tensor]

    @property
    def first(self) -> Tensor:
        """[R] int64: each row's first sequence: a pair's chosen step, a list's best."""
        return self.indices[:, 0]


def collate(data: Path | Table, settings: ObjectiveSettings, *, source: str | None = None) -> TrainingData:
    """The rows of a table (or of its file) as the objective learns from them.

    source: what messages call the table (None: its file, or its kind). Raises InputError for a file that is not the
    objective's kind of table, for a table without rows, and for margins that an objective on margins cannot use.
    """
    wanted = table_of(settings.kind)
    source = source or (data.what if isinstance(data, TypedTable) else str(data))
    table = data if isinstance(data, TypedTable) else load_any(Path(data), wanted)
    if not isinstance(table, wanted):
        what = f"{settings.kind!r} learns from {wanted.what}, not {table.what}"
        raise InputError(f"{source}: training.objective: {what}")
    if not len(table):
        why = "" if wanted is Solutions else " (no parent had two children that differ enough: see preferences.min_gap)"
        raise InputError(f"{source}: no rows; there is nothing to learn from{why}")
    if isinstance(table, Solutions):
        return _solutions(table, source)
    return _lists(table, settings, source) if isinstance(table, Siblings) else _pairs(table, settings, source)


def load_any(path: Path, wanted: type[Pairs] | type[Siblings] | type[Solutions]) -> Table:
    """The table in a file: of the wanted kind, or of another kind if the file holds that.

    Raises InputError, about the wanted kind, for a file of no kind.
    """
    try:
        return wanted.load(path)
    except InputError:
        for kind in (Pairs, Siblings, Solutions):
            with suppress(InputError):
                return kind.load(path)
        raise


def _solutions(table: Solutions, source: str) -> TrainingData:
    prompt, completion = table.tokens("prompt_tokens"), table.tokens("completion_tokens")
    parts = [(prompt[row], completion[row]) for row in range(len(table))]
    weight = table.numbers("weight")
    unscored = _unscored(prompt, [table.environment_mask("completion")])
    scored = sequences(parts, prompt.lengths, prompt.lengths, weight, unscored=unscored)
    return TrainingData(scored, weight, {}, {}, table.tokenizer, source)


def _pairs(table: Pairs, settings: ObjectiveSettings, source: str) -> TrainingData:
    prompt, prefix = table.tokens("prompt_tokens"), table.tokens("prefix_tokens")
    chosen, rejected = table.tokens("chosen_tokens"), table.tokens("rejected_tokens")
    weight, margin = table.numbers("weight"), table.numbers("margin")
    if objective_named(settings.kind).needs_margins:
        _check_margins(margin, settings, source)
    parts = [(prompt[row], prefix[row], step[row]) for row in range(len(table)) for step in (chosen, rejected)]
    step_from = np.repeat(prompt.lengths + prefix.lengths, 2)
    imitation = np.stack([weight, np.zeros_like(weight)], axis=1).ravel()
    scored_from = _scored_from(np.repeat(prompt.lengths, 2), step_from, imitation, settings)
    unscored = _unscored(
        prompt, *([table.environment_mask("prefix"), table.environment_mask(step)] for step in ("chosen", "rejected"))
    )
    start = np.stack([table.numbers("chosen_logprob"), table.numbers("rejected_logprob")], axis=1).ravel()
    return TrainingData(
        sequences(parts, scored_from, step_from, imitation, per_row=2, unscored=unscored),
        weight,
        {"smoothing": table.numbers("smoothing"), "margin": margin},
        {} if np.isnan(start).any() else {"start": start},
        table.tokenizer,
        source,
    )


def _check_margins(margin: NDArray[np.float64], settings: ObjectiveSettings, source: str) -> None:
    below = np.flatnonzero(margin < 0)
    if len(below):
        what = f"margin is {margin[below[0]]:g}, so that the rejected step is worth more than the chosen one"
        raise InputError(f"{source}: row {below[0]}: {what} (accepted by {settings.kind!r}: 0 or more)")
    if not margin.any():
        raise InputError(
            f"{source}: training.objective: {settings.kind!r} learns from margins, and all of them are 0 "
            "(accepted: a field margin, or score_chosen and score_rejected)"
        )


def _lists(table: Siblings, settings: ObjectiveSettings, source: str) -> TrainingData:
    prompt, prefix, step = (table.tokens(f"{name}_tokens") for name in ("prompt", "prefix", "step"))
    parts = [(prompt[row], prefix[row], step[row]) for row in range(len(table))]
    step_from = prompt.lengths + prefix.lengths
    best = table.numbers("rank") == 0
    imitation = np.where(best, table.numbers("weight"), 0.0)
    scored_from = _scored_from(prompt.lengths, step_from, imitation, settings)
    step_columns = {
        "start": table.numbers("logprob"),
        "value": table.numbers("value"),
        "advantage": table.numbers("q") - table.numbers("parent_value"),
        "count": table.numbers("samples").astype(np.float64),
    }
    unscored = _unscored(prompt, [table.environment_mask("prefix"), table.environment_mask("step")])
    scored = sequences(parts, scored_from, step_from, imitation, per_row=np.diff(table.offsets), unscored=unscored)
    return TrainingData(scored, table.numbers("weight")[best], {}, step_columns, table.tokenizer, source)


def _unscored(prompt: JaggedArray, *parts_per_sequence: list[list[NDArray[np.bool_]]]) -> NDArray[np.bool_] | None:
    """[T] bool, which tokens of all sequences, one after the other, the environment wrote; None if it wrote none.

    parts_per_sequence: for each sequence of a row its parts after the prompt; each part is a list of masks, one per
    row.
    """
    masks = [
        mask
        for row in range(len(prompt))
        for parts in parts_per_sequence
        for mask in (np.zeros(len(prompt[row]), dtype=np.bool_), *(part[row] for part in parts))
    ]
    found = np.concatenate(masks)
    return found if found.any() else None


def _scored_from(
    prompt: NDArray[np.int64],
    step_from: NDArray[np.int64],
    imitation: NDArray[np.float64],
    settings: ObjectiveSettings,
) -> NDArray[np.int64]:
    """The first scored token: the imitated sequence is in both terms, so its earlier steps are scored too."""
    both = isinstance(settings, LossSettings) and settings.nll_weight > 0
    return np.where(imitation > 0, prompt, step_from) if both else step_from

"""Training a value model: a scalar head on the policy's trunk learns the values that the search found for steps.

In: a policy and a table of pairs or lists of siblings, with the Q of each step. Out: a directory that
`mcts_dpo.models.value_head` reads. The training itself is that of every head (`heads.py`).

Loss per row: regression (V − Q)², mean over its steps, and pairwise ranking, mean over its pairs of steps with
Q_i > Q_j. By default the ranking loss is max(0, m − (V_i − V_j)) with m = `training.value.ranking_margin`: it asks for
an order and leaves the size of the gap to the regression. The other is −log σ(V_i − V_j), which rewards any wider gap.
Source: Chen et al. 2024, arXiv 2406.10858 (SVPO: a value model on the steps of search trees, trained with a squared
error to Q and a margin loss between steps). We could not read the paper's margin in print; 0.1 is ours, a twentieth of
the range of Q.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_replaceable
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.models.value_head import relative_policy, save
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions
from mcts_dpo.preferences.typed_table import TypedTable
from mcts_dpo.training.checkpoints import TrainState, save_adapters
from mcts_dpo.training.data.batches import Sequences, last_tokens
from mcts_dpo.training.data.collate import TrainingData, collate, load_any
from mcts_dpo.training.heads import HeadPlan, train_head
from mcts_dpo.training.loop import TrainingSummary
from mcts_dpo.training.objectives.registry import objective_settings
from mcts_dpo.training.settings import TrainingSettings, ValueLossSettings
from mcts_dpo.training.tasks import Rows

RECORD = "value.json"
NAMES = ("loss", "regression", "ranking", "accuracy")
"""The figures of the log. accuracy: share of pairs of steps in a row that V orders as Q does (a tie: half)."""


def train_value(
    policy: str | Path,
    data: Path | Pairs | Siblings,
    out: Path,
    settings: TrainingSettings,
    *,
    log: Path | None = None,
    unfinished_at: Path | None = None,
    board: Path | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train a value model on `policy`'s trunk and write it to `out`, whole or not at all.

    data:     pairs or lists of siblings (a table or its file): every step in them is a prefix with a Q.
    settings: `value.*` is the loss; with `lora` the trunk is adapted too, without it the head alone is
              trained. `optimiser.lr` should be about 1e-2 for a head alone, 1e-4 with adapters.

    Everything else, and the errors, are as in `loop.train`.
    """
    require_replaceable(Path(out), RECORD)
    table = data if isinstance(data, TypedTable) else _load(Path(data))
    found = collate_values(table, str(data) if isinstance(data, Path) else table.what)
    plan = HeadPlan(
        objective="value",
        data=found,
        width=1,
        names=NAMES,
        loss=partial(value_loss, found, settings.value),
        trunk="frozen",
        write=partial(_write, relative_policy(policy, Path(out)), found.tokenizer),
    )
    return train_head(
        policy, plan, Path(out), settings, log=log, unfinished_at=unfinished_at, board=board, progress=progress
    )


def collate_values(table: Pairs | Siblings, source: str) -> TrainingData:
    """Every step of the table as a prefix whose last state is read, with its Q as the step column "q"."""
    known = collate(table, objective_settings("step_dpo" if isinstance(table, Pairs) else "lipo"))
    if isinstance(table, Pairs):
        q = np.stack([table.numbers("chosen_q"), table.numbers("rejected_q")], axis=1).ravel()
    else:
        q = table.numbers("q")
    last = last_tokens(known.sequences)
    return replace(known, sequences=last, row_columns={}, step_columns={"q": q}, source=source)


def value_loss(data: TrainingData, settings: ValueLossSettings, found: Tensor, rows: Rows, update: Rows) -> Tensor:
    """The figures `NAMES` of one pass. data: see `collate_values`. found, rows, update: see `heads.HeadLoss`."""
    found = found.squeeze(-1)
    wanted = torch.from_numpy(data.step_columns["q"][data.sequences.of_rows(rows)]).to(found)
    row = row_numbers(data.sequences, rows).to(found.device)
    weight = torch.from_numpy(data.weight[rows] / data.weight[update].sum()).to(found)
    better = (row[:, None] == row) & (wanted[:, None] > wanted)
    per_row = found.new_zeros(len(rows))
    steps = per_row.index_add(0, row, torch.ones_like(found))
    pairs = per_row.index_add(0, row, better.sum(1).to(found)).clamp(min=1)
    gap = found[:, None] - found
    regression = (weight / steps)[row] @ (found - wanted).square()
    ranking = (weight / pairs)[row] @ (better * ranking_loss(gap, settings)).sum(1)
    loss = settings.regression_weight * regression + settings.ranking_weight * ranking
    right = (weight / pairs)[row] @ (better * (gap.detach().sign() + 1) / 2).sum(1)
    return torch.stack([loss, regression, ranking, right])


def row_numbers(data: Sequences, rows: Rows) -> Tensor:
    """[sequences of these rows] int64: which of the rows each belongs to, as an index into `rows`."""
    return torch.from_numpy(np.repeat(np.arange(len(rows)), np.diff(data.row_offsets)[rows]))


def ranking_loss(gap: Tensor, settings: ValueLossSettings) -> Tensor:
    """The loss of each gap V_i − V_j between a better step and a worse one, of the same shape, ≥ 0."""
    return F.relu(settings.ranking_margin - gap) if settings.ranking == "margin" else -F.logsigmoid(gap)


def _write(policy: str, tokenizer: str, trained: TrainState, folder: Path, weights: str, about: dict[str, Any]) -> None:
    if trained.adapters is not None:
        save_adapters(trained.adapters, folder / "adapter")
    weight, bias = trained.model.head.weight.detach()[0], trained.model.head.bias.detach()[0]
    save(folder, weight, bias, policy=policy, weights=weights, tokenizer=tokenizer, about=about)


def _load(path: Path) -> Pairs | Siblings:
    """Pairs or siblings by what the file holds."""
    accepted = "accepted: pairs.parquet or siblings.parquet, which know the steps' Q"
    if path.suffix.lower() != ".parquet" or not path.is_file():
        raise InputError(f"{path}: no such table ({accepted})")
    found = load_any(path, Pairs)
    if isinstance(found, Solutions):
        raise InputError(f"{path}: a value model does not learn from solutions ({accepted})")
    return found

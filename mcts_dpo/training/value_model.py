"""Training a value model: a scalar head on the policy's trunk learns the values that the search found for steps.

In: a policy and a table of pairs or lists of siblings, with the Q of each step. Out: a directory that
`mcts_dpo.models.value_head` reads. Sequences, packs, checkpoints and processes are those of `loop`; only the loss
differs.

Loss per row: regression (V − Q)², mean over its steps, and pairwise ranking, mean over its pairs of steps with
Q_i > Q_j. By default the ranking loss is max(0, m − (V_i − V_j)) with m = `training.value.ranking_margin`: it asks for
an order and leaves the size of the gap to the regression. The other is −log σ(V_i − V_j), which rewards any wider gap.
Source: Chen et al. 2024, arXiv 2406.10858 (SVPO: a value model on the steps of search trees, trained with a squared
error to Q and a margin loss between steps). We could not read the paper's margin in print; 0.1 is ours, a twentieth of
the range of Q.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_replaceable, whole
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest, weights_digest
from mcts_dpo.models.value_head import relative_policy, save
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions
from mcts_dpo.preferences.typed_table import TypedTable
from mcts_dpo.training.checkpoints import TrainState, load_train_state, save_adapters
from mcts_dpo.training.data.batches import Sequences, forward_passes, make_batch, sequences
from mcts_dpo.training.data.collate import TrainingData, collate, load_any
from mcts_dpo.training.data.packing import Packed, pack, packed_passes
from mcts_dpo.training.distributed import joined
from mcts_dpo.training.logprobs import states_of
from mcts_dpo.training.loop import TrainingSummary, check_fit, fit, threads_of
from mcts_dpo.training.objectives.registry import objective_settings
from mcts_dpo.training.settings import TrainingSettings, ValueLossSettings
from mcts_dpo.training.state import Identity, checkpoints_in, data_digest, explained_disk
from mcts_dpo.training.tasks import MicroBatchLoss, Rows


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
    out = Path(out)
    require_replaceable(out, "value.json")
    folder = unfinished_at or out.parent / f"{out.name}.unfinished"
    table = data if isinstance(data, TypedTable) else _load(Path(data))
    training_data, values = collate_values(table, str(data) if isinstance(data, Path) else table.what)
    tokenizer = load_tokenizer(policy)
    if training_data.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{training_data.source}: made with another tokenizer than that of the policy {policy}")
    with ExitStack() as stack:
        context = stack.enter_context(joined())
        trained, weights = _train_state(policy, settings)
        stack.enter_context(threads_of(settings, trained.model))
        check_fit(training_data, trained.model.trunk, settings)
        identity = Identity(weights, data_digest((training_data.sequences, values, training_data.weight)), settings)
        stack.enter_context(explained_disk(folder))
        checkpoints = stack.enter_context(checkpoints_in(folder, identity, context, out=out, log=log))
        task = ValueTrainingTask(training_data.sequences, values, training_data.weight, settings, trained.device)
        summary = fit(trained, task, settings, context=context, checkpoints=checkpoints, board=board, progress=progress)
        summary = replace(summary, objective="value")
        if context.main:
            head = trained.model.head
            with whole(out) as scratch:
                scratch.mkdir()
                if trained.adapters is not None:
                    with torch.no_grad():
                        for weight, master in zip(trained.weights, trained.master_weights, strict=True):
                            weight.data = master.data.detach()
                    save_adapters(trained.adapters, scratch / "adapter")
                about = {"settings": settings.model_dump(mode="json"), "summary": summary.as_dict()}
                save(
                    scratch,
                    head.weight.detach()[0],
                    head.bias.detach()[0],
                    policy=relative_policy(policy, out),
                    weights=weights,
                    tokenizer=training_data.tokenizer,
                    about=about,
                )
        context.wait()
    return summary


def collate_values(table: Pairs | Siblings, source: str) -> tuple[TrainingData, NDArray[np.float64]]:
    """Every step of the table as a prefix whose last state is read, and the Q of each.

    A token is appended to each prefix and marked as scored: the state that predicts it is the prefix's last.
    """
    known = collate(table, objective_settings("step_dpo" if isinstance(table, Pairs) else "lipo"))
    data = known.sequences
    parts = [(data.of(index), np.zeros(1, np.int32)) for index in range(len(data))]
    ends = data.lengths
    sizes = np.diff(data.row_offsets)
    found = sequences(parts, ends, ends, np.zeros(len(data)), per_row=sizes)
    if isinstance(table, Pairs):
        values = np.stack([table.numbers("chosen_q"), table.numbers("rejected_q")], axis=1).ravel()
    else:
        values = table.numbers("q")
    return replace(known, sequences=replace(found, tree=data.tree), source=source), values


@dataclass(frozen=True, slots=True)
class ValueTrainingTask:
    """A head that learns the Q of sequences' last tokens. See `tasks.TrainingTask`.

    data: sequences as `collate_values` makes them. values: [sequences] float64. weight: [rows] float64 > 0.
    """

    data: Sequences
    values: NDArray[np.float64]
    weight: NDArray[np.float64]
    settings: TrainingSettings
    device: torch.device

    @property
    def rows(self) -> int:
        """Pairs or lists."""
        return self.data.rows

    @property
    def sequences(self) -> int:
        """Of all rows."""
        return len(self.data)

    @property
    def trees(self) -> NDArray[np.int64] | None:
        """Rows under one prompt."""
        return self.data.tree if self.settings.data.packing else None

    @property
    def names(self) -> tuple[str, ...]:
        """accuracy: share of pairs of steps in a row that V orders as Q does (a tie: half)."""
        return ("loss", "regression", "ranking", "accuracy")

    @property
    def needs_reference(self) -> bool:
        """Never."""
        return False

    def passes(self, rows: Rows, max_tokens: int) -> list[Rows]:
        """See `TrainingTask`."""
        return (packed_passes if self.settings.data.packing else forward_passes)(self.data, rows, max_tokens)

    def longest(self, rows: Rows) -> int:
        """See `TrainingTask`."""
        return int(self.data.lengths[self.data.of_rows(rows)].max())

    def reference(self, model: Any, *, rows: Rows) -> tuple[Tensor, Tensor, int]:
        """There is none."""
        raise NotImplementedError

    def micro_batch_loss(self, model: Any, *, rows: Rows, update: Rows, reference: Tensor | None) -> MicroBatchLoss:
        """See `TrainingTask`."""
        which = self.data.of_rows(rows)
        batch = (pack if self.settings.data.packing else make_batch)(self.data, which).to(self.device)
        found = model.head(states_of(model.trunk, batch).float()).squeeze(-1)
        if isinstance(batch, Packed):
            # One scored token per unique step, and steps in the order of their numbers.
            found = found[batch.step_tokens][batch.step_of]
        wanted = torch.from_numpy(self.values[which]).to(found)
        row = torch.from_numpy(np.repeat(np.arange(len(rows)), np.diff(self.data.row_offsets)[rows])).to(self.device)
        weight = torch.from_numpy(self.weight[rows] / self.weight[update].sum()).to(found)
        better = (row[:, None] == row) & (wanted[:, None] > wanted)
        per_row = found.new_zeros(len(rows))
        steps = per_row.index_add(0, row, torch.ones_like(found))
        pairs = per_row.index_add(0, row, better.sum(1).to(found)).clamp(min=1)
        gap = found[:, None] - found
        regression = (weight / steps)[row] @ (found - wanted).square()
        ranking = (weight / pairs)[row] @ (better * ranking_loss(gap, self.settings.value)).sum(1)
        loss = self.settings.value.regression_weight * regression + self.settings.value.ranking_weight * ranking
        with torch.no_grad():
            right = (weight / pairs)[row] @ (better * (gap.sign() + 1) / 2).sum(1)
            figures = torch.stack([loss, regression, ranking, right])
        return MicroBatchLoss(loss, figures, int(batch.input_ids.numel()), int(batch.input_ids.numel()), len(which))


def ranking_loss(gap: Tensor, settings: ValueLossSettings) -> Tensor:
    """The loss of each gap V_i − V_j between a better step and a worse one, of the same shape, ≥ 0."""
    return F.relu(settings.ranking_margin - gap) if settings.ranking == "margin" else -F.logsigmoid(gap)


class _Scored(nn.Module):
    """A trunk and its head as one module, whose trained parameters are found together."""

    def __init__(self, trunk: Any, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head


def _train_state(policy: str | Path, settings: TrainingSettings) -> tuple[TrainState, str]:
    """The policy's trunk (adapted or frozen) with a new head that returns 0 everywhere, and its weights' digest."""
    frozen = load_train_state(policy, settings.model_copy(update={"lora": None, "dtype": "float32"}))
    digest = weights_digest(frozen.model)
    trained = load_train_state(policy, settings) if settings.lora else frozen
    if settings.lora is None:
        trained.model.requires_grad_(False)
    head = nn.Linear(trained.model.config.get_text_config().hidden_size, 1, device=trained.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    weights = [*head.parameters(), *(trained.weights if settings.lora else [])]
    master_weights: list[Tensor] = [*head.parameters(), *(trained.master_weights if settings.lora else [])]
    return replace(
        trained, model=_Scored(trained.model, head).eval(), weights=weights, master_weights=master_weights
    ), digest


def _load(path: Path) -> Pairs | Siblings:
    """Pairs or siblings by what the file holds."""
    accepted = "accepted: pairs.parquet or siblings.parquet, which know the steps' Q"
    if path.suffix.lower() != ".parquet" or not path.is_file():
        raise InputError(f"{path}: no such table ({accepted})")
    found = load_any(path, Pairs)
    if isinstance(found, Solutions):
        raise InputError(f"{path}: a value model does not learn from solutions ({accepted})")
    return found

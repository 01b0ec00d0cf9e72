"""Trains a head on a policy's last hidden states: what value models and process reward models have in common.

In: a policy, prefixes whose last state the head reads, and a loss on its outputs. Out: the trained head and trunk,
written by the caller's function. Sequences, packs, checkpoints and processes are those of `loop`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import whole
from mcts_dpo.common.progress import Progress
from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest, weights_digest
from mcts_dpo.training.checkpoints import TrainState, load_train_state
from mcts_dpo.training.data.batches import Sequences, forward_passes, make_batch
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.data.packing import Packed, pack, packed_passes
from mcts_dpo.training.distributed import joined
from mcts_dpo.training.logprobs import states_of
from mcts_dpo.training.loop import TrainingSummary, check_fit, fit, threads_of
from mcts_dpo.training.settings import TrainingSettings
from mcts_dpo.training.state import Identity, checkpoints_in, data_digest, explained_disk
from mcts_dpo.training.tasks import MicroBatchLoss, Rows

HeadLoss = Callable[[Tensor, Rows, Rows], Tensor]
"""(outputs, rows, update) → figures. outputs: [sequences of these rows, width], in order. rows: of one pass. update:
the rows of the whole update. Returns [names] figures that sum to the update's over its passes; the first one is
differentiated."""


@dataclass(frozen=True, slots=True)
class HeadTask:
    """A head that learns from the last states of sequences. See `tasks.TrainingTask`.

    data: sequences in which only the last token is scored: the head reads its state.
    """

    data: Sequences
    loss: HeadLoss
    names: tuple[str, ...]
    settings: TrainingSettings
    device: torch.device

    @property
    def rows(self) -> int:
        """Sequences that the loss compares: a pair, the steps after one prefix."""
        return self.data.rows

    @property
    def sequences(self) -> int:
        """Of all rows."""
        return len(self.data)

    @property
    def trees(self) -> NDArray[Any] | None:
        """Rows under one prompt."""
        return self.data.tree if self.settings.data.packing else None

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
        found = model.head(states_of(model.trunk, batch).to(model.head.weight.dtype))
        if isinstance(batch, Packed):
            # One scored token per unique step, and steps in the order of their numbers.
            found = found[batch.step_tokens][batch.step_of]
        figures = self.loss(found, rows, update)
        size = int(batch.input_ids.numel())
        real = size if isinstance(batch, Packed) else int(self.data.lengths[which].sum())
        return MicroBatchLoss(figures[0], figures.detach(), real, size, len(which))


class HeadModel(nn.Module):
    """A trunk and its head as one module, whose trained parameters are found together."""

    def __init__(self, trunk: Any, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head


class HeadPlan(NamedTuple):
    """What is trained, and how it is written.

    objective: its name in the summary. data: see `HeadTask`. width: outputs of the head. names, loss: see `HeadTask`.
    trunk:     without adapters: "frozen" trains the head alone, "trained" all weights.
    check:     raises InputError, before the training, for a trunk that `write` cannot write.
    write:     (trained, folder, digest of the policy's weights, settings and summary): writes the directory.
    """

    objective: str
    data: TrainingData
    width: int
    names: tuple[str, ...]
    loss: HeadLoss
    trunk: Literal["frozen", "trained"]
    write: Callable[[TrainState, Path, str, dict[str, Any]], None]
    check: Callable[[Any], None] = lambda trunk: None


def train_head(
    policy: str | Path,
    plan: HeadPlan,
    out: Path,
    settings: TrainingSettings,
    *,
    log: Path | None,
    unfinished_at: Path | None,
    board: Path | None,
    progress: Progress,
) -> TrainingSummary:
    """Train a head on `policy`'s trunk and write it to `out`, whole or not at all. Errors are those of `loop.train`."""
    folder = unfinished_at or out.parent / f"{out.name}.unfinished"
    data = plan.data
    if data.tokenizer != tokenizer_digest(load_tokenizer(policy)):
        raise InputError(f"{data.source}: made with another tokenizer than that of the policy {policy}")
    with ExitStack() as stack:
        context = stack.enter_context(joined())
        trained, weights = _head_state(policy, plan, settings)
        stack.enter_context(threads_of(settings, trained.model))
        check_fit(data, trained.model.trunk, settings)
        identity = Identity(weights, data_digest(data), settings)
        stack.enter_context(explained_disk(folder))
        checkpoints = stack.enter_context(checkpoints_in(folder, identity, context, out=out, log=log))
        task = HeadTask(data.sequences, plan.loss, plan.names, settings, trained.device)
        summary = fit(trained, task, settings, context=context, checkpoints=checkpoints, board=board, progress=progress)
        summary = replace(summary, objective=plan.objective)
        if context.main:
            with whole(out) as scratch:
                scratch.mkdir()
                trained.adopt_master_weights()
                about = {"settings": settings.model_dump(mode="json"), "summary": summary.as_dict()}
                plan.write(trained, scratch, weights, about)
        context.wait()
    return summary


def _head_state(policy: str | Path, plan: HeadPlan, settings: TrainingSettings) -> tuple[TrainState, str]:
    """The policy's trunk with a new head that returns 0 everywhere, and the digest of the policy's weights.

    The trunk is adapted if the settings have `lora`; otherwise `plan.trunk` says whether its weights are trained.
    """
    plain = {"lora": None} if plan.trunk == "trained" else {"lora": None, "dtype": "float32"}
    trained = load_train_state(policy, settings.model_copy(update=plain))
    plan.check(trained.model)
    digest = weights_digest(trained.model)
    if settings.lora:
        trained = load_train_state(policy, settings)
    else:
        trained.model.requires_grad_(False)
        trained.model.base_model.requires_grad_(plan.trunk == "trained")
    head = nn.Linear(trained.model.config.get_text_config().hidden_size, plan.width, device=trained.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    learned = [
        (weight, master)
        for weight, master in zip(trained.weights, trained.master_weights, strict=True)
        if weight.requires_grad
    ]
    return replace(
        trained,
        model=HeadModel(trained.model, head).eval(),
        weights=[*head.parameters(), *(weight for weight, _ in learned)],
        master_weights=[*head.parameters(), *(master for _, master in learned)],
    ), digest

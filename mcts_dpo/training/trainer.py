"""One round's training: a policy and a table of pairs or solutions in, the next policy out.

Deterministic: the same policy, data, settings and machine give the same bytes. Knows neither where the
data came from nor what the policy is used for.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mcts_dpo.files import InputError, whole, write_json
from mcts_dpo.models import load_tokenizer, tokenizer_digest
from mcts_dpo.progress import Progress, silent
from mcts_dpo.training.batches import forward_passes, make_batch, plan_updates
from mcts_dpo.training.checkpoints import Trainable, load_trainable, save_policy
from mcts_dpo.training.lessons import Lessons, Table, load_lessons
from mcts_dpo.training.logprobs import check_readable, score
from mcts_dpo.training.objectives import loss_of, names, needs_reference, totals
from mcts_dpo.training.settings import TrainingSettings

WINDOW = 10
"""Updates over which figures are averaged before they are compared with a bound or reported as last."""


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a training run did. Nothing in it depends on the clock.

    objective, rows, updates: what was learned from, and in how many updates.
    epochs:       passes over the rows, as a fraction where updates were capped.
    parameters:   trained weights (adapters only under LoRA).
    tokens:       real tokens through forward and backward passes; reference_tokens: through the reference's forward.
    padding:      share of computed positions that were padding, in [0, 1).
    scored_tokens: tokens whose log-probability was computed with gradient.
    clipped:      share of updates whose gradient norm was clipped.
    first, last:  figures of the first update (before any change of weights), and means over the last ten updates.
    alarms:       one line each, in the order in which they went off.
    """

    objective: str
    rows: int
    updates: int
    epochs: float
    parameters: int
    tokens: int
    reference_tokens: int
    padding: float
    scored_tokens: int
    clipped: float
    first: dict[str, float]
    last: dict[str, float]
    alarms: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "alarms": list(self.alarms)}


def train(
    policy: str | Path,
    data: Path | Table,
    out: Path,
    settings: TrainingSettings,
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train `policy` on `data` and write the result to `out`, whole or not at all.

    policy: a hub name, a Hugging Face directory, an adapter's directory or a .gguf file (see `mcts_dpo.models`).
    data:   a table or its Parquet file: pairs, siblings or solutions, as the objective wants (`lessons.table_of`).
    out:    becomes a plain Hugging Face directory in the policy's own dtype, with the tokenizer, `training.json`
            (settings and summary), and under LoRA `adapter/`, the adapters by themselves.
    log:    gets one JSON line per update as it happens: the figures of `objectives.names`, and update, lr,
            gradient_norm, clipped, tokens.

    The reference is the policy as it starts (algorithm: Step-DPO); its log-probabilities are computed once, in the
    first epoch's own batches, so that the first margins are 0 and not rounding noise.

    Raises InputError: a table of the wrong kind or without rows, ids of another tokenizer or outside the vocabulary,
    a sequence longer than the policy's context, a policy that cannot be trained, a gradient that is not finite.
    """
    lessons = load_lessons(data, settings)
    tokenizer = load_tokenizer(policy)
    if lessons.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{lessons.source}: made with another tokenizer than that of the policy {policy}")
    with ExitStack() as stack:
        if settings.threads is not None:
            stack.enter_context(_threads(settings.threads))
        trained = load_trainable(policy, settings)
        _check_fit(lessons, trained.model)
        stream = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(log.open("w", encoding="utf-8"))
        summary = fit(trained, lessons, settings, log=stream, progress=progress)
        with whole(out) as scratch:
            scratch.mkdir()
            save_policy(trained, tokenizer, scratch)
            record = {"settings": settings.model_dump(mode="json"), "summary": summary.as_dict()}
            write_json(scratch / "training.json", {**record, "tokenizer": lessons.tokenizer})
    return summary


@dataclass(slots=True)
class _Watch:
    """Figures of the updates so far: the first, the last few, running counts, and the alarms."""

    settings: TrainingSettings
    window: int
    first: dict[str, float] = field(default_factory=dict)
    recent: deque[dict[str, float]] = field(default_factory=deque)
    alarms: dict[str, str] = field(default_factory=dict)
    clipped: int = 0

    def see(self, update: int, figures: dict[str, float], clipped: bool) -> None:
        self.first = self.first or figures
        self.recent.append(figures)
        if len(self.recent) > self.window:
            self.recent.popleft()
        self.clipped += clipped
        if len(self.recent) == self.window:
            self._alarm(update, "chosen", self.settings.chosen_alarm)
            self._alarm(update, "rejected", self.settings.rejected_alarm)

    def last(self) -> dict[str, float]:
        return {name: sum(figures[name] for figures in self.recent) / len(self.recent) for name in self.first}

    def _alarm(self, update: int, kind: str, bound: float) -> None:
        name = f"{kind}_displacement"
        if kind in self.alarms or name not in self.first:
            return
        fall = -sum(figures[name] for figures in self.recent) / len(self.recent)
        if fall > bound:
            self.alarms[kind] = (
                f"displacement: by update {update} the {kind} steps' log-probability is {fall:.2f} nats below its "
                f"start (mean of {len(self.recent)} updates; alarm beyond {bound:g})"
            )


def fit(
    trained: Trainable,
    lessons: Lessons,
    settings: TrainingSettings,
    *,
    log: IO[str] | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """The training loop itself: changes `trained`'s weights in place. See `train`."""
    rows, sequences = lessons.sequences.rows, lessons.sequences
    epochs = plan_updates(
        rows,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        max_updates=settings.max_updates,
        seed=settings.seed,
    )
    updates = [update for epoch in epochs for update in epoch]
    device = trained.weights[0].device
    reference, reference_tokens = None, 0
    if needs_reference(settings.objective):
        passes = [one for update in epochs[0] for one in forward_passes(sequences, update, settings.max_batch_tokens)]
        reference = _reference(trained, lessons, passes, progress)
        reference_tokens = sum(int(sequences.lengths[sequences.of_rows(one)].sum()) for one in passes)
    optimizer = _optimizer(trained, settings)
    watch = _Watch(settings, window=min(WINDOW, len(updates)))
    tokens = positions = scored = 0
    for number, update in enumerate(updates):
        lr = settings.lr * schedule(number, len(updates), settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        total, sums, update_tokens = totals(lessons, update), None, 0
        for one in forward_passes(sequences, update, settings.max_batch_tokens):
            which = sequences.of_rows(one)
            batch = make_batch(sequences, which).to(device)
            loss, figures = loss_of(
                score(trained.model, batch),
                batch,
                lessons.targets(one, device),
                None if reference is None else reference[torch.from_numpy(which)],
                total,
                settings,
            )
            torch.autograd.backward(loss)
            trained.collect_gradients()
            sums = figures if sums is None else sums + figures
            update_tokens += int(sequences.lengths[which].sum())
            positions += batch.input_ids.numel()
            scored += len(batch.targets)
        norm = _clip(trained.masters, settings.max_grad_norm)
        if not math.isfinite(norm):
            raise InputError(
                f"training.lr: {settings.lr:g}: the gradient of update {number + 1} is not finite (accepted: less)"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trained.publish_masters()
        tokens += update_tokens
        figures_now = dict(zip(names(settings.objective), _numbers(sums), strict=True))
        figures_now |= {"gradient_norm": norm, "lr": lr}
        clipped = settings.max_grad_norm is not None and norm > settings.max_grad_norm
        watch.see(number + 1, figures_now, clipped)
        if log is not None:
            line = {"update": number + 1, **figures_now, "clipped": clipped, "tokens": update_tokens}
            log.write(json.dumps(line) + "\n")
            log.flush()
        shown = {name: figures_now[name] for name in ("loss", "margin", "accuracy") if name in figures_now}
        progress("train", number + 1, len(updates), **shown)
    return TrainingSummary(
        objective=settings.objective,
        rows=rows,
        updates=len(updates),
        epochs=sum(len(update) for update in updates) / rows,
        parameters=sum(parameter.numel() for parameter in trained.weights),
        tokens=tokens,
        reference_tokens=reference_tokens,
        padding=1 - tokens / positions,
        scored_tokens=scored,
        clipped=watch.clipped / len(updates),
        first=watch.first,
        last=watch.last(),
        alarms=tuple(watch.alarms.values()),
    )


def schedule(update: int, updates: int, settings: TrainingSettings) -> float:
    """Share in (0, 1] of the peak learning rate at `update` (0-based) of `updates`.

    Rises linearly over the first ceil(warmup · updates) updates, the last of them at the peak; then falls to zero at
    the (imagined) update after the last one, along half a cosine or a line, or stays.
    """
    rising = math.ceil(settings.warmup * updates)
    if update < rising:
        return (update + 1) / rising
    done = (update - rising) / (updates - rising)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if settings.schedule == "linear" else 1.0


def _numbers(sums: Tensor | None) -> list[float]:
    values: list[float] = [] if sums is None else sums.double().tolist()
    return values


def _reference(trained: Trainable, lessons: Lessons, passes: list[NDArray[np.int64]], progress: Progress) -> Tensor:
    """[sequences] step log-probabilities of the policy as it starts; NaN for rows that no update will see."""
    data = lessons.sequences
    device = trained.weights[0].device
    found: Tensor | None = None
    with torch.no_grad():
        for done, rows in enumerate(passes):
            which = data.of_rows(rows)
            steps = score(trained.model, make_batch(data, which).to(device)).steps
            if found is None:
                found = torch.full((len(data),), torch.nan, dtype=steps.dtype, device=device)
            found[torch.from_numpy(which)] = steps
            progress("reference", done + 1, len(passes))
    assert found is not None
    return found


def _optimizer(trained: Trainable, settings: TrainingSettings) -> torch.optim.Optimizer:
    matrices = [master for master in trained.masters if master.dim() >= 2]
    vectors = [master for master in trained.masters if master.dim() < 2]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
        if params
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def _clip(masters: list[Tensor], bound: float | None) -> float:
    """The global gradient norm; the gradients are scaled down to `bound` where it is above."""
    gradients = [master.grad for master in masters if master.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if bound is not None:
        nn.utils.clip_grads_with_norm_(masters, bound, norm)
    return float(norm)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_fit(lessons: Lessons, model: Any) -> None:
    data = lessons.sequences
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(data.tokens.max()) >= vocabulary:
        first = int(np.flatnonzero(data.tokens >= vocabulary)[0])
        row = data.row_of(int(np.searchsorted(data.offsets, first, side="right")) - 1)
        raise InputError(
            f"{lessons.source}: row {row}: token id {data.tokens[first]} "
            f"(accepted: below {vocabulary}, the policy's vocabulary)"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    longest = int(data.lengths.argmax())
    if context is not None and int(data.lengths[longest]) > context:
        raise InputError(
            f"{lessons.source}: row {data.row_of(longest)}: {data.lengths[longest]} tokens "
            f"(accepted: up to {context}, the policy's context)"
        )
    short = data.tokens[: min(8, int(data.offsets[1]))].astype(np.int64)
    check_readable(model, torch.from_numpy(short)[None].to(model.device))

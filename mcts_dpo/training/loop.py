"""One round's training: a policy and a table in, the next policy out.

Deterministic: the same policy, data, settings and machine give the same bytes, with or without a kill and a resume.
`train` handles files and processes, `fit` is the loop.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_replaceable, whole, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.models.loading import context_length, load_tokenizer, tokenizer_digest, weights_digest
from mcts_dpo.preferences.dataset import Solutions
from mcts_dpo.preferences.typed_table import TypedTable
from mcts_dpo.training.budget import passes_of, reduce_budget, restart_with_less, restore_budget
from mcts_dpo.training.checkpoints import TrainState, load_train_state, save_policy, shard, unsharded
from mcts_dpo.training.data.batches import plan_updates
from mcts_dpo.training.data.collate import Table, TrainingData, collate
from mcts_dpo.training.data.datasets import load_table, own_table
from mcts_dpo.training.distributed import SINGLE_PROCESS, DistributedContext, joined
from mcts_dpo.training.logprobs import check_packable, check_readable
from mcts_dpo.training.memory import out_of_memory, release
from mcts_dpo.training.metrics import WINDOW, MetricTracker
from mcts_dpo.training.mixing import mixed
from mcts_dpo.training.objectives.registry import objective_settings
from mcts_dpo.training.optimisation import clip, make_optimizer, schedule
from mcts_dpo.training.settings import TrainingSettings
from mcts_dpo.training.state import (
    CheckpointManager,
    Identity,
    TrainingProgress,
    checkpoints_in,
    data_digest,
    explained_disk,
)
from mcts_dpo.training.tasks import PolicyTrainingTask, Rows, TrainingTask
from mcts_dpo.training.trackers import Tracker, trackers

Evaluation = Callable[[int, Any], Mapping[str, float]]
"""A function of (updates done, model in evaluation mode) that returns figures."""

SMALL_MODEL = 250_000
"""Weights below which a model trains on one thread. Its operations are so short that other threads only wait for work:
a packed toy policy takes 19 CPU seconds for 4 updates on two busy cores with two threads, 0.6 with one."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a training run did. Nothing in it depends on the clock.

    objective, rows, updates: what was learned, from how many rows, in how many updates.
    epochs:       passes over the rows, as a fraction where updates were capped.
    parameters:   trained weights (adapters only under LoRA).
    tokens:       real tokens through forward and backward passes; a token that sequences share in a pack counts once.
    reference_tokens: real tokens through the reference's forward passes.
    padding:      share of computed positions that were padding, in [0, 1).
    scored_tokens: tokens whose log-probability was computed with gradient.
    clipped:      share of updates whose gradient norm was clipped.
    first, last:  figures of the first update (before any change of weights), and means over the last ten updates.
    alarms:       one line each, in order.
    notes:        what else a user should know, one line each, such as a halved token budget.
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
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "alarms": list(self.alarms), "notes": list(self.notes)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> TrainingSummary:
        """The inverse of `as_dict`."""
        return cls(**{**data, "alarms": tuple(data["alarms"]), "notes": tuple(data["notes"])})


def train(
    policy: str | Path,
    data: str | Path | Table,
    out: Path,
    settings: TrainingSettings,
    *,
    questions: Path | Solutions | None = None,
    log: Path | None = None,
    unfinished_at: Path | None = None,
    board: Path | None = None,
    evaluate: Evaluation | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train `policy` on `data` and write the result to `out`, whole or not at all.

    policy: a hub name, a Hugging Face directory, an adapter's directory or a .gguf file (`mcts_dpo.models.loading`).
    data:   a table, its Parquet file or the folder of it: pairs, siblings or solutions, as the objective wants
            (`collate.table_of`); or TRL-style data: a .jsonl, .json or .parquet file, a folder that `datasets` reads,
            or the name of a data set (see `datasets`).
    out:    becomes a plain Hugging Face directory in the policy's own dtype, with the tokenizer, `training.json`
            (settings and summary), and under LoRA `adapter/`, the adapters by themselves.
    questions: about the policy's own steps (`judgements.make_judgements`, or its file): they are learned beside the
            objective, in the share that `settings.self_evaluation` says.
    log:    appears at the end, one JSON line per update: the figures of the objective, and update, lr,
            gradient_norm, clipped, tokens. During training it grows as `log.jsonl` in `unfinished_at`.
    unfinished_at: folder of the live log and the checkpoint (default: `out` + ".unfinished"). It is removed when the
            training is finished. After a kill at any moment, the same call resumes from the checkpoint there and ends
            with the same bytes.
    board:  folder for TensorBoard's files (None: none).
    evaluate: called every `settings.evaluate_every` updates and after the last; its figures go to the log and
            the trackers, with the prefix `eval_`.

    The reference is the policy at its start. Its log-probabilities are computed once, in the first epoch's own batches,
    so that the first margins are 0 and not rounding noise.

    Under `torchrun` or `accelerate launch` all processes make the same call and train one policy together: each
    update's forward passes are distributed over them, and gradients are summed. Rank 0 writes the files.

    Raises InputError: a table of the wrong kind or without rows, ids of another tokenizer or outside the vocabulary,
    a sequence longer than the policy's context, a policy that cannot be trained, a gradient that is not finite, a
    checkpoint of another training, a full disk, an alarm where `settings.on_alarm` is "stop". Raises RestartError
    in every process if memory runs out in shards: the same call resumes with half the token budget.
    """
    out = Path(out)
    require_replaceable(out, "training.json")
    folder = unfinished_at or out.parent / f"{out.name}.unfinished"
    tokenizer = load_tokenizer(policy)
    training_data = _training_data(data, policy, tokenizer, settings)
    if training_data.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{training_data.source}: made with another tokenizer than that of the policy {policy}")
    with ExitStack() as stack:
        context = stack.enter_context(joined())
        trained = load_train_state(policy, settings)
        stack.enter_context(threads_of(settings, trained.model))
        check_fit(training_data, trained.model, settings)
        own = PolicyTrainingTask(training_data, settings, trained.device)
        task: TrainingTask = own
        learned: Any = training_data
        if questions is not None:
            asked = _questions(questions, training_data.tokenizer)
            check_fit(asked, trained.model, settings)
            task, learned = mixed(own, asked), (training_data, asked)
        identity = Identity(weights_digest(trained.model), data_digest(learned), settings)
        if settings.sharding and context.size > 1:
            trained = shard(trained)
        stack.enter_context(explained_disk(folder))
        checkpoints = stack.enter_context(checkpoints_in(folder, identity, context, out=out, log=log))
        summary = fit(
            trained,
            task,
            settings,
            context=context,
            checkpoints=checkpoints,
            board=board,
            evaluate=evaluate,
            progress=progress,
        )
        trained = unsharded(trained, policy, settings)
        if context.main:
            with whole(out) as scratch:
                scratch.mkdir()
                save_policy(trained, tokenizer, scratch)
                record = {"settings": settings.model_dump(mode="json"), "summary": summary.as_dict()}
                write_json(scratch / "training.json", {**record, "tokenizer": training_data.tokenizer})
        context.wait()
    return summary


def _questions(questions: Path | Solutions, tokenizer: str) -> TrainingData:
    """Questions as the rows that `rft` learns from; those about one problem are one tree."""
    table = questions if isinstance(questions, Solutions) else Solutions.load(questions)
    table.require_tokenizer(tokenizer)
    found = collate(table, objective_settings("rft"), source="questions")
    numbers: dict[str, int] = {}
    tree = np.array([numbers.setdefault(name, len(numbers)) for name in table.texts("problem_id")], dtype=np.int64)
    return replace(found, sequences=replace(found.sequences, tree=tree))


def _training_data(
    data: str | Path | Table, policy: str | Path, tokenizer: Any, settings: TrainingSettings
) -> TrainingData:
    if isinstance(data, TypedTable):
        return collate(data, settings.objective)
    ours = own_table(Path(data), settings.objective.kind)
    if ours is not None:
        return collate(ours, settings.objective)
    table = load_table(data, tokenizer, settings, context_length(policy))
    return collate(table, settings.objective, source=str(data))


def fit(
    trained: TrainState,
    task: TrainingTask,
    settings: TrainingSettings,
    *,
    context: DistributedContext = SINGLE_PROCESS,
    checkpoints: CheckpointManager | None = None,
    board: Path | None = None,
    evaluate: Evaluation | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """The training loop itself: changes `trained`'s weights in place, from a checkpoint if there is one.

    See `train`.
    """
    epochs = plan_updates(
        task.rows,
        batch_size=settings.data.batch_size,
        epochs=settings.data.epochs,
        max_updates=settings.data.max_updates,
        seed=settings.seed,
        tree=task.trees,
    )
    updates = [update for epoch in epochs for update in epoch]
    optimizer = make_optimizer(trained.master_weights, settings.optimiser)
    state = checkpoints.load(trained, optimizer) if checkpoints is not None else None
    if state is None:
        state = TrainingProgress(MetricTracker(min(WINDOW, len(updates))), settings.data.max_batch_tokens)
    if checkpoints is not None:
        restore_budget(state, checkpoints)
        checkpoints.open_log(state.log_bytes)
    _stop_at_alarms(state, settings, checkpoints)
    if task.needs_reference and state.reference is None:
        state.reference = _reference(trained, task, epochs[0], state, context, checkpoints, progress)
    with ExitStack() as stack:
        names = settings.trackers if context.main else ()
        about = settings.model_dump(mode="json")
        name = checkpoints.folder.name.removesuffix(".unfinished") if checkpoints is not None else "training"
        following = stack.enter_context(trackers(names, board, run=name, settings=about, resumed_at=state.update))
        clock, tokens_before = time.monotonic(), state.tokens
        for number in range(state.update, len(updates)):
            lr = settings.optimiser.lr * schedule(number, len(updates), settings.optimiser)
            line, alarms = _update(trained, task, optimizer, updates[number], lr, state, settings, context, checkpoints)
            last = number + 1 == len(updates)
            if evaluate is not None and (last or _every(settings.evaluate_every, number + 1)):
                line |= {f"eval_{name}": float(value) for name, value in evaluate(number + 1, trained.model).items()}
            if checkpoints is not None:
                state.log_bytes = checkpoints.write_line(json.dumps({"update": number + 1, **line}))
            for alarm in alarms if context.main else ():
                logger.warning(alarm)
            _follow(following, number + 1, line)
            pace = (state.tokens - tokens_before) / max(time.monotonic() - clock, 1e-9)
            progress("train", number + 1, len(updates), **_shown(line), **{"tok/s": pace})
            stopping = bool(alarms) and settings.on_alarm == "stop"
            if checkpoints is not None and (stopping or context.any(context.main and checkpoints.due(number + 1))):
                checkpoints.save(state, trained, optimizer)
            _stop_at_alarms(state, settings, checkpoints)
    return TrainingSummary(
        objective=settings.objective.kind,
        rows=task.rows,
        updates=len(updates),
        epochs=sum(len(update) for update in updates) / task.rows,
        parameters=sum(weight.numel() for weight in trained.weights),
        tokens=state.tokens,
        reference_tokens=state.reference_tokens,
        padding=1 - state.tokens / state.positions,
        scored_tokens=state.scored,
        clipped=state.metrics.clipped / len(updates),
        first=state.metrics.first,
        last=state.metrics.last(),
        alarms=tuple(state.metrics.alarms.values()),
        notes=tuple(state.notes),
    )


def _update(
    trained: TrainState,
    task: TrainingTask,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    lr: float,
    state: TrainingProgress,
    settings: TrainingSettings,
    context: DistributedContext,
    checkpoints: CheckpointManager | None,
) -> tuple[dict[str, Any], list[str]]:
    """One update of the weights from `rows`. Returns its line for the log and its new alarms."""
    sums = _gradients(trained, task, rows, state, context, checkpoints)
    *values, tokens, positions, scored = sums
    norm = clip(trained.master_weights, settings.optimiser.max_grad_norm, context, trained.root is not None)
    if not math.isfinite(norm):
        raise InputError(
            f"training.optimiser.lr: {settings.optimiser.lr:g}: the gradient of update {state.update + 1} is not "
            "finite (accepted: less)"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    trained.clear_gradients()
    trained.publish_master_weights()
    state.update += 1
    state.tokens += int(tokens)
    state.positions += int(positions)
    state.scored += int(scored)
    figures = dict(zip(task.names, values, strict=True)) | {"gradient_norm": norm, "lr": lr}
    clipped = settings.optimiser.max_grad_norm is not None and norm > settings.optimiser.max_grad_norm
    alarms = state.metrics.add(state.update, figures, clipped, settings)
    return {**figures, "clipped": clipped, "tokens": int(tokens)}, alarms


def _gradients(
    trained: TrainState,
    task: TrainingTask,
    rows: Rows,
    state: TrainingProgress,
    context: DistributedContext,
    checkpoints: CheckpointManager | None,
) -> list[float]:
    """Leave the gradients of the whole update in the master weights; returns its figures, tokens, positions, scored.

    If memory does not suffice, the token budget of a pass is halved and the update starts again. In shards all
    processes end and must be restarted (`RestartError`).
    """
    while True:
        failed = False
        passes = passes_of(task, rows, state.max_batch_tokens, context)
        sums, counted = torch.zeros(len(task.names), device=trained.device), np.zeros(3)
        try:
            for one, counts in context.assign(passes, equal=trained.root is not None):
                part = trained.call(partial(task.micro_batch_loss, rows=one, update=rows, reference=state.reference))
                torch.autograd.backward(part.loss if counts else 0 * part.loss)
                trained.collect_gradients()
                if counts:
                    sums = sums + part.figures
                    counted += part[2:]
        except (RuntimeError, MemoryError) as error:
            if trained.root is not None and checkpoints is not None:
                restart_with_less(error, task, [rows], [passes], state, context, checkpoints)
            if not out_of_memory(error) or trained.root is not None:
                raise
            failed = True
        if context.any(failed):
            trained.clear_gradients()
            release()
            reduce_budget(task, [rows], [passes], state, context)
            continue
        if trained.root is None:
            _sum_gradients(trained.master_weights, context)
        figures = torch.cat([sums.double(), torch.from_numpy(counted).to(sums.device)])
        summed: list[float] = context.sum(figures).tolist()
        return summed


def _sum_gradients(master_weights: Sequence[Tensor], context: DistributedContext) -> None:
    """Sum the gradients over all processes, in each of them. A gradient that no process has stays None."""
    if context.size == 1:
        return
    have = context.sum(
        torch.tensor([float(master.grad is not None) for master in master_weights], device=master_weights[0].device)
    )
    wanted = [master for master, count in zip(master_weights, have.tolist(), strict=True) if count]
    for master in wanted:
        if master.grad is None:
            master.grad = torch.zeros_like(master)
    flat = context.sum(torch.cat([master.grad.flatten() for master in wanted if master.grad is not None]))
    for master, part in zip(wanted, torch.split(flat, [master.numel() for master in wanted]), strict=True):
        master.grad = part.view_as(master)


def _reference(
    trained: TrainState,
    task: TrainingTask,
    updates: Sequence[Rows],
    state: TrainingProgress,
    context: DistributedContext,
    checkpoints: CheckpointManager | None,
    progress: Progress,
) -> Tensor:
    """The reference's numbers under the model at its start, for every row of the first epoch."""
    while True:
        failed = False
        plan = [passes_of(task, update, state.max_batch_tokens, context) for update in updates]
        # Distributed update by update, as in training: each pass is computed here as it will be there.
        mine = [one for passes in plan for one in context.assign(passes, equal=trained.root is not None)]
        dtype = torch.promote_types(trained.weights[0].dtype, torch.float32)
        found = torch.full((task.sequences,), torch.nan, dtype=dtype, device=trained.device)
        tokens = 0
        try:
            with torch.no_grad():
                for done, (one, counts) in enumerate(mine):
                    which, values, cost = trained.call(partial(task.reference, rows=one))
                    if counts:
                        found[which] = values
                        tokens += cost
                    progress("reference", done + 1, len(mine))
        except (RuntimeError, MemoryError) as error:
            if trained.root is not None and checkpoints is not None:
                restart_with_less(error, task, updates, plan, state, context, checkpoints)
            if not out_of_memory(error) or trained.root is not None:
                raise
            failed = True
        if context.any(failed):
            release()
            reduce_budget(task, updates, plan, state, context)
            continue
        state.reference_tokens = int(context.sum(torch.tensor(float(tokens), device=trained.device)).item())
        if context.size > 1:
            missing = context.sum((~found.isnan()).float()) == 0
            found = context.sum(found.nan_to_num(0.0)).masked_fill(missing, torch.nan)
        return found


def _stop_at_alarms(state: TrainingProgress, settings: TrainingSettings, checkpoints: CheckpointManager | None) -> None:
    if settings.on_alarm == "stop" and state.metrics.alarms:
        kept = f"; its checkpoint is kept in {checkpoints.folder}" if checkpoints is not None else ""
        alarm = next(iter(state.metrics.alarms.values()))
        raise InputError(
            f"training.on_alarm: stopped after update {state.update}: {alarm}{kept} ("
            "accepted: a lower lr, more nll_weight, another bound, or on_alarm=warn, which resumes from there)"
        )


def _every(period: int | None, update: int) -> bool:
    return period is not None and update % period == 0


def _follow(following: Sequence[Tracker], update: int, line: Mapping[str, Any]) -> None:
    figures = {name: float(value) for name, value in line.items()}
    for track in following:
        track(update, figures)


_SHOWN = {
    "loss": "loss",
    "margin": "margin",
    "accuracy": "accuracy",
    "chosen_logprob": "chosen",
    "rejected_logprob": "rejected",
}


def _shown(line: Mapping[str, Any]) -> dict[str, float]:
    return {short: float(line[name]) for name, short in _SHOWN.items() if name in line}


@contextmanager
def threads_of(settings: TrainingSettings, model: nn.Module) -> Iterator[None]:
    """Torch's threads while the block runs: those of the settings; else one for a small model, or as many as before."""
    before = torch.get_num_threads()
    small = sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL
    torch.set_num_threads(settings.threads or (1 if small else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_fit(training_data: TrainingData, model: Any, settings: TrainingSettings) -> None:
    """Raise InputError unless the model can read the data: ids, lengths, and its kind (see `check_readable`)."""
    data = training_data.sequences
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(data.tokens.max()) >= vocabulary:
        first = int(np.flatnonzero(data.tokens >= vocabulary)[0])
        row = data.row_of(int(np.searchsorted(data.offsets, first, side="right")) - 1)
        raise InputError(
            f"{training_data.source}: row {row}: token id {data.tokens[first]} "
            f"(accepted: below {vocabulary}, the policy's vocabulary)"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    longest = int(data.lengths.argmax())
    if context is not None and int(data.lengths[longest]) > context:
        raise InputError(
            f"{training_data.source}: row {data.row_of(longest)}: {data.lengths[longest]} tokens "
            f"(accepted: up to {context}, the policy's context)"
        )
    short = data.tokens[: min(8, int(data.offsets[1]))].astype(np.int64)
    ids = torch.from_numpy(short)[None].to(model.device)
    check_readable(model, ids)
    if settings.data.packing:
        check_packable(model, ids)

"""How many tokens a forward pass may have, and what happens when memory does not suffice for them.

In: a task, an update's rows, the training so far. Out: forward passes, or a smaller token budget. Processes that each
hold the whole model halve the budget together and continue. In a model in shards every layer is a collective operation:
a process without memory leaves the others waiting in an operation that it never joins. It writes the smaller budget
next to the checkpoint, all processes end (`RestartError`), and after a restart they continue with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mcts_dpo.common.errors import InputError, RestartError
from mcts_dpo.training.distributed import DistributedContext
from mcts_dpo.training.memory import out_of_memory
from mcts_dpo.training.state import CheckpointManager, TrainingProgress
from mcts_dpo.training.tasks import Rows, TrainingTask

logger = logging.getLogger(__name__)


def passes_of(task: TrainingTask, rows: Rows, max_tokens: int, context: DistributedContext) -> list[Rows]:
    """The update's forward passes, at least one for each process if there are enough rows."""
    passes = task.passes(rows, max_tokens)
    while len(passes) < min(context.size, len(rows)) and max_tokens > 1:
        max_tokens //= 2
        passes = task.passes(rows, max_tokens)
    return passes


def reduce_budget(
    task: TrainingTask,
    updates: Sequence[Rows],
    plan: Sequence[Sequence[Rows]],
    state: TrainingProgress,
    context: DistributedContext,
) -> None:
    """Halve the token budget, and warn."""
    state.max_batch_tokens, note = _halved(task, updates, plan, state, context)
    state.notes.append(note)
    if context.main:
        logger.warning(note)


def restart_with_less(
    error: Exception,
    task: TrainingTask,
    updates: Sequence[Rows],
    plan: Sequence[Sequence[Rows]],
    state: TrainingProgress,
    context: DistributedContext,
    checkpoints: CheckpointManager,
) -> None:
    """Raise RestartError if memory ran out here, or in another process whose end broke an operation here.

    The processes can no longer communicate: the others wait in a layer's operation that this one never joins. So the
    smaller budget is written to disk, where all find it when they are restarted.
    """
    if out_of_memory(error):
        budget, note = _halved(task, updates, plan, state, context)
        report = checkpoints.halve(budget, note)
    else:
        left = checkpoints.halved()
        if left is None or left["max_batch_tokens"] >= state.max_batch_tokens:
            return
        note, report = left["note"], False
    again = f"all processes end; the same command (or torchrun --max-restarts) resumes from {checkpoints.folder}"
    raise RestartError(f"{note}; {again}", report=report) from error


def restore_budget(state: TrainingProgress, checkpoints: CheckpointManager) -> None:
    """Take the smaller budget that an earlier attempt stored when its memory did not suffice."""
    left = checkpoints.halved()
    if left is not None and left["max_batch_tokens"] < state.max_batch_tokens:
        state.max_batch_tokens = left["max_batch_tokens"]
        state.notes.append(left["note"])


def _halved(
    task: TrainingTask,
    updates: Sequence[Rows],
    plan: Sequence[Sequence[Rows]],
    state: TrainingProgress,
    context: DistributedContext,
) -> tuple[int, str]:
    """Halve the token budget until the updates take more passes than in the `plan` that did not fit into memory.

    Returns the budget and a line about it.
    """
    if all(len(one) == 1 for passes in plan for one in passes):
        longest = max(task.longest(update) for update in updates)
        raise InputError(
            f"training.data.max_batch_tokens: memory does not suffice for one row alone, of {longest} tokens "
            "(accepted: shorter rows, training.gradient_checkpointing=true, training.lora, or more memory)"
        )
    budget = state.max_batch_tokens

    def passes() -> int:
        return sum(len(passes_of(task, update, budget, context)) for update in updates)

    while passes() <= sum(map(len, plan)) and budget > 1:
        budget //= 2
    note = (
        f"update {state.update + 1}: memory did not suffice for {state.max_batch_tokens} tokens at once; "
        f"continuing with {budget} (training.data.max_batch_tokens)"
    )
    return budget, note

"""Monte Carlo tree search over reasoning steps, many problems at once.

In: problems, an engine, settings. Out: a `Forest`. What one simulation does is in simulation.py; when it is done is
the schedule: waves.py, deterministic, or events.py, where no tree waits for another.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcts_dpo.engines.base import Engine
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.desk import SearchClock
from mcts_dpo.search.events import run_events
from mcts_dpo.search.forest import Forest
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.simulation import Mode, Task, start
from mcts_dpo.search.waves import run_waves


def search(
    problems: Sequence[Problem],
    engine: Engine,
    *,
    prompt: PromptSettings,
    settings: SearchSettings,
    mode: Mode = "train",
    progress: Progress = silent,
    clock: SearchClock | None = None,
) -> Forest:
    """One tree per problem, in the order of `problems`.

    mode:  "train" verifies outcomes against the reference answers; "solve" takes them away first, so that nothing
           here can depend on them. A problem without a reference answer is searched as in "solve".
    clock: to it is added where the time went.

    A problem whose prompt leaves no room, or one of whose requests the engine refuses, ends as "failed" with the
    reason in its `TreeInfo`; the others go on. Raises InputError if two problems share an id (their samples would
    be the same).
    """
    require_unique(problems)
    task = start(problems, engine, prompt, settings, mode)
    if settings.schedule == "waves":
        run_waves(task, clock, lambda task: report(task, progress))
        return task.forest
    run_events([task], engine, settings, clock, told=lambda task: report(task, progress))
    report(task, progress)
    return task.forest.by_tree()


def require_unique(problems: Sequence[Problem]) -> None:
    """Raise InputError if two problems share an id."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"problems: the id {problem.id!r} occurs twice; accepted: one problem per id")
        seen.add(problem.id)


def report(task: Task, progress: Progress) -> None:
    """Progress in problems, by the simulations done; a tree that ended early counts as a whole one."""
    tally = task.tally
    done = tally.simulations // task.settings.simulations
    solved = tally.solved / max(1, len(task.trees))
    progress("search", done, len(task.trees), tokens=float(tally.tokens), solved=solved)

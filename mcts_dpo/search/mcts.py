"""Monte Carlo tree search over reasoning steps, many problems at once: the entry, and the deterministic waves.

In: problems, an engine, settings. Out: a `Forest`. What one simulation does is in simulation.py; when it is done is
the schedule. In "waves" all living trees select together, all requests go to the engine together, and nothing moves
on before all are back: the result depends on the problem, the settings and the policy alone, not on the order or
number of the problems, nor on which request the engine finishes first. In "events" (events.py) no tree waits for
another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcts_dpo.engines.base import Engine
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search import kernels
from mcts_dpo.search.desk import Desk, SearchClock, exchange
from mcts_dpo.search.events import Owner, run_events, trees_alive
from mcts_dpo.search.forest import NONE, Forest
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.simulation import Mode, Task, ask, end_if_done, grow, judge, plan, settle, start


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
    if settings.schedule == "events":
        desk: Desk[Owner] = Desk(engine, clock)
        report(task, progress)
        run_events([task], desk, trees_alive(engine, settings), lambda _: None, lambda task: report(task, progress))
        desk.close()
        report(task, progress)
        return task.forest.by_tree()
    run_waves(task, clock, progress)
    return task.forest


def require_unique(problems: Sequence[Problem]) -> None:
    """Raise InputError if two problems share an id."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"problems: the id {problem.id!r} occurs twice; accepted: one problem per id")
        seen.add(problem.id)


def run_waves(task: Task, clock: SearchClock | None = None, progress: Progress = silent) -> None:
    """Search every tree of a task to its end, all of them in step."""
    desk: Desk[int] = Desk(task.engine, clock)
    while _wave(task, desk):
        report(task, progress)
    report(task, progress)
    desk.close()


def _wave(task: Task, desk: Desk[int]) -> bool:
    """Select, expand, judge and back up once in every living tree. False if there was none."""
    living = [tree for tree in task.trees if tree.living]
    if not living:
        return False
    settings = task.settings
    wanted = [min(settings.parallel_leaves, settings.simulations - tree.started) for tree in living]
    rule = kernels.PUCT if settings.selection == "puct" else kernels.UCT
    indices = np.array([tree.index for tree in living])
    leaves = kernels.select(task.forest, indices, np.array(wanted), rule, settings.c_puct)
    planned = [
        plan(task, tree, int(leaf)) for tree, row in zip(living, leaves, strict=True) for leaf in row if leaf != NONE
    ]
    completions = exchange(desk, [request for _, request in planned])
    growths = [
        grow(task, expansion, completion.samples, completion.error)
        for (expansion, _), completion in zip(planned, completions, strict=True)
    ]
    for growth in growths:
        judge(task, growth)
    questions = [asked for growth in growths for asked in ask(task, growth)]
    answers = exchange(desk, [request for _, request in questions])
    settle(task, growths, {node: answer for (node, _), answer in zip(questions, answers, strict=True)})
    for tree in living:
        end_if_done(task, tree)
    return True


def report(task: Task, progress: Progress) -> None:
    """Progress in problems, by the simulations done; a tree that ended early counts as a whole one."""
    tally = task.tally
    done = tally.simulations // task.settings.simulations
    solved = tally.solved / max(1, len(task.trees))
    progress("search", done, len(task.trees), tokens=float(tally.tokens), solved=solved)

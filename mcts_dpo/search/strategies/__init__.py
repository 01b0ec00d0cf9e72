"""Ways to spend a budget of generated tokens on a problem, all on the same engine and prompt, none seeing an answer.

`solve` runs one of STRATEGIES over many problems at once, at one or several budgets:

greedy, majority, best-of-n, weighted   whole solutions (sampling.py)
beam, dvts                              partial solutions, step by step (beams.py)
mcts                                    this package's tree search (tree.py)

In: problems (their reference answers are taken away first), an engine, budgets. Out: an `Attempt` per problem and
budget. Knows nothing of whether an answer is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from mcts_dpo.engines.base import Engine
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, part_of, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.strategies import sampling, tree
from mcts_dpo.search.strategies.budget import Attempt, Task, make_task
from mcts_dpo.search.strategies.dialogues import Dialogue, run_dialogues
from mcts_dpo.search.strategies.live import dialogue_for, no_room
from mcts_dpo.search.strategies.registry import STRATEGIES, Strategy, register_strategy, strategy_named
from mcts_dpo.search.strategies.settings import Plan, StrategySettings, plan

__all__ = [
    "STRATEGIES",
    "Attempt",
    "Dialogue",
    "Plan",
    "Strategy",
    "StrategySettings",
    "Task",
    "plan",
    "register_strategy",
    "solve",
    "strategy_named",
]

ResultT = TypeVar("ResultT")


def solve(
    problems: Sequence[Problem],
    engine: Engine,
    wanted: Sequence[tuple[Strategy, int]],
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    settings: StrategySettings | None = None,
    progress: Progress = silent,
) -> dict[tuple[Strategy, int], list[Attempt]]:
    """For each wanted (strategy, budget in generated tokens per problem) an attempt per problem, in order.

    Majority, best-of-n and weighted read one stream of samples, drawn once for the largest of their budgets (see
    sampling.py); every other pair is run for itself. A problem that the engine refuses, or whose prompt leaves no
    room, is an attempt with its `error`; the others go on. Raises InputError for a budget below 1 and for two
    problems of one id (their samples would be the same).
    """
    settings = settings or StrategySettings()
    for strategy, budget in wanted:
        if budget < 1:
            raise InputError(f"budget of {strategy}: {budget} is out of range (accepted: an integer ≥ 1)")
    ids: set[str] = set()
    for problem in problems:
        if problem.id in ids:
            raise InputError(f"problems: the id {problem.id!r} occurs twice; accepted: one problem per id")
        ids.add(problem.id)
    hidden = [problem.without_answer() for problem in problems]
    tasks = [make_task(problem, engine, prompt, search) for problem in hidden]
    found: dict[tuple[Strategy, int], list[Attempt]] = {}
    streams = [(rule, budget) for strategy, budget in wanted for rule in sampling.RULES if rule == strategy]
    if streams:
        found |= _from_one_stream(tasks, engine, streams, progress)
    for strategy, budget in wanted:
        if (strategy, budget) in found:
            continue
        follows = plan(budget, settings, search)
        told = part_of(progress, prefix=f"{strategy} {budget}: ")
        if strategy == "mcts":
            found[strategy, budget] = tree.mcts(tasks, engine, budget, follows, told)
        else:
            done = _teller(told, len(tasks), engine)
            attempts = _each(tasks, engine, partial(_dialogue, strategy, budget, follows), done)
            found[strategy, budget] = [a if isinstance(a, Attempt) else _failed(a) for a in attempts]
    return found


def _each(
    tasks: Sequence[Task], engine: Engine, dialogue: Callable[[Task], Dialogue[ResultT]], done: Callable[[int], None]
) -> list[ResultT | str]:
    """Run a dialogue per task, side by side. A task without room gets the reason in place of its result."""
    results: list[ResultT | str] = [no_room(task, engine) for task in tasks]
    served = [index for index, task in enumerate(tasks) if task.limit >= 1]
    for index, result in zip(served, run_dialogues([dialogue(tasks[i]) for i in served], engine, done), strict=True):
        results[index] = result
    return results


def _dialogue(strategy: Strategy, budget: int, follows: Plan, task: Task) -> Dialogue[Attempt]:
    return dialogue_for(strategy, task, budget, follows)


def _teller(progress: Progress, total: int, engine: Engine) -> Callable[[int], None]:
    """Reports so many finished problems, with the tokens that the engine has sampled since now."""
    before = engine.usage.sampled_tokens

    def tell(done: int) -> None:
        progress("solve", done, total, tokens=float(engine.usage.sampled_tokens - before))

    tell(0)
    return tell


def _failed(reason: str) -> Attempt:
    return Attempt(None, "", 0, 0, reason)


def _from_one_stream(
    tasks: Sequence[Task], engine: Engine, wanted: Sequence[tuple[sampling.Rule, int]], progress: Progress
) -> dict[tuple[Strategy, int], list[Attempt]]:
    """All rules that read the stream of samples, at all their budgets."""
    plain = max((budget for rule, budget in wanted if rule not in sampling.JUDGED), default=0)
    judged = max((budget for rule, budget in wanted if rule in sampling.JUDGED), default=0)
    names = ", ".join(dict.fromkeys(rule for rule, _ in wanted))
    streams = _each(
        tasks,
        engine,
        lambda task: sampling.draw(task, plain, judged),
        _teller(part_of(progress, prefix=f"{names} {max(plain, judged)}: "), len(tasks), engine),
    )
    return {
        (rule, budget): [
            _failed(stream) if isinstance(stream, str) else sampling.answer_from(stream, rule, budget, task.cost)
            for task, stream in zip(tasks, streams, strict=True)
        ]
        for rule, budget in wanted
    }

"""Runs strategies over many problems at one or several budgets, or over one question.

In: problems, an engine, strategies with budgets. The reference answers are removed first. Out: solutions that are not
verified yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress, part_of, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.coroutine import Coroutine, RequestError
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.deadline import Clock, require_seconds
from mcts_dpo.search.mcts import require_unique
from mcts_dpo.search.runner import run
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import NO_ROOM
from mcts_dpo.solve.budgets import BudgetedSettings, StrategySettings, budget_to_settings
from mcts_dpo.solve.metering import metered
from mcts_dpo.solve.question import Question, make_question
from mcts_dpo.solve.registry import Strategy, strategy_function
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import JUDGED, answer_from, draw
from mcts_dpo.solve.vote import RULES, Rule

ResultT = TypeVar("ResultT")


def solve_problems(
    problems: Sequence[Problem],
    engine: Engine,
    wanted: Sequence[tuple[Strategy, int]],
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    settings: StrategySettings | None = None,
    progress: Progress = silent,
    clock: Clock = time.monotonic,
) -> dict[tuple[Strategy, int], list[Solution]]:
    """Solve every problem with each strategy at each budget.

    wanted:   pairs (strategy, budget in generated tokens per problem).
    search:   how solutions are sampled. settings: see `StrategySettings`.
    progress: called as problems finish.
    clock:    measures `search.seconds`, which runs for each problem from its first request, and `Solution.seconds`.

    Returns for each pair the solutions, in the order of the problems. A problem gets a solution with an `error` if the
    engine refuses it or its prompt leaves no room; the other problems continue.

    Majority, best-of-n and weighted read one stream of samples, which is drawn once for the largest of their budgets
    (see strategies/sampling.py). Every other pair runs separately, and with `search.seconds` every pair does.

    Raises InputError for a budget below 1, for seconds below one step of the engine, and for two problems with the same
    id (their samples would be the same). Raises EngineDiedError.
    """
    for strategy, budget in wanted:
        if budget < 1:
            raise InputError(f"budget of {strategy}: {budget} is out of range (accepted: an integer ≥ 1)")
    require_unique(problems)
    require_seconds(search.seconds, engine, clock)
    questions = [_question(problem, engine, prompt, search, clock) for problem in problems]
    found: dict[tuple[Strategy, int], list[Solution]] = {}
    streams = [(rule, budget) for strategy, budget in wanted for rule in RULES if rule == strategy]
    if streams and search.seconds is None:
        found |= _from_one_stream(questions, engine, streams, progress, clock)
    for strategy, budget in wanted:
        if (strategy, budget) not in found:
            budgeted = budget_to_settings(budget, search, settings)
            told = _reporter(part_of(progress, prefix=f"{strategy} {budget}: "), len(questions), engine)
            found[strategy, budget] = _each(questions, engine, strategy, budgeted, told, clock)
    return found


def solve_question(
    question: str | Problem,
    engine: Engine,
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    strategy: Strategy = "mcts",
    budget: int | None = None,
    settings: StrategySettings | None = None,
    progress: Progress = silent,
    clock: Clock = time.monotonic,
) -> Solution:
    """Answer one question with a strategy, without a reference answer.

    question: a text, or a problem.
    budget:   generated tokens. Settings that `search` and `settings` leave open follow from it. None: see
              `budget_to_settings`.

    clock:    measures `search.seconds` and `Solution.seconds`.

    Raises InputError if the question is empty or cannot be served (it does not fit the context, or the engine refuses
    it), and for seconds below one step of the engine. Raises EngineDiedError.
    """
    problem = Problem("question", question) if isinstance(question, str) else question
    if not problem.question.strip():
        raise InputError("question: is empty; accepted: a problem in words")
    try:
        asked = make_question(problem, engine, prompt, search, clock=clock)
    except InputError as error:
        raise InputError(f"question: {error}") from None
    require_seconds(search.seconds, engine, clock)
    budgeted = budget_to_settings(budget, search, settings, explicit=True)
    (solution,) = _each([asked], engine, strategy, budgeted, _reporter(progress, 1, engine), clock)
    if solution.error is not None:
        raise InputError(f"question: {solution.error}")
    return solution


def _question(
    problem: Problem, engine: Engine, prompt: PromptSettings, search: SearchSettings, clock: Clock
) -> Question | str:
    """The question, or the reason why its prompt leaves no room for a solution."""
    try:
        return make_question(problem, engine, prompt, search, clock=clock)
    except InputError as error:
        if NO_ROOM not in str(error):
            raise
        return str(error)


def solving(question: Question, strategy: Strategy, budgeted: BudgetedSettings) -> Coroutine[Solution]:
    """The coroutine of a strategy over one question. It also counts the costs (see `metered`)."""
    question = question.anew()
    return metered(question, strategy_function(strategy)(question, budgeted))


def _each(
    questions: Sequence[Question | str],
    engine: Engine,
    strategy: Strategy,
    budgeted: BudgetedSettings,
    on_result: Callable[[int], None],
    clock: Clock,
) -> list[Solution]:
    began = clock()
    found = _side_by_side(questions, engine, lambda one: solving(one, strategy, budgeted), on_result)
    solutions = [one if isinstance(one, Solution) else Solution(error=one) for one in found]
    return timed(solutions, clock() - began, sum(one.tokens for one in solutions))


def timed(solutions: Sequence[Solution], seconds: float, tokens: int) -> list[Solution]:
    """The solutions, each with its share of the seconds in which `tokens` tokens were spent."""
    return [replace(one, seconds=seconds * one.tokens / max(1, tokens)) for one in solutions]


def _side_by_side(
    questions: Sequence[Question | str],
    engine: Engine,
    coroutine: Callable[[Question], Coroutine[ResultT]],
    on_result: Callable[[int], None],
) -> list[ResultT | str]:
    """Run one coroutine per question. If a question has no room or a refused request, its result is the reason."""
    served = [question for question in questions if isinstance(question, Question)]
    ended = iter(run([coroutine(question) for question in served], engine, on_result=on_result))
    results = [question if isinstance(question, str) else next(ended) for question in questions]
    return [str(result) if isinstance(result, RequestError) else result for result in results]


def _reporter(progress: Progress, total: int, engine: Engine) -> Callable[[int], None]:
    """A function that reports the number of finished problems, and the tokens that the engine has sampled since now."""
    before = engine.usage.sampled_tokens

    def report(done: int) -> None:
        progress("solve", done, total, tokens=float(engine.usage.sampled_tokens - before))

    report(0)
    return report


def _from_one_stream(
    questions: Sequence[Question | str],
    engine: Engine,
    wanted: Sequence[tuple[Rule, int]],
    progress: Progress,
    clock: Clock,
) -> dict[tuple[Strategy, int], list[Solution]]:
    """The solutions of all rules that read the same stream of samples, at all their budgets."""
    plain = max((budget for rule, budget in wanted if rule not in JUDGED), default=0)
    judged = max((budget for rule, budget in wanted if rule in JUDGED), default=0)
    names = ", ".join(dict.fromkeys(rule for rule, _ in wanted))
    told = part_of(progress, prefix=f"{names} {max(plain, judged)}: ")
    began = clock()
    streams = _side_by_side(
        questions, engine, lambda one: draw(one.anew(), plain, judged), _reporter(told, len(questions), engine)
    )
    seconds = clock() - began
    drawn = sum(
        solution.tokens + (one.cost if solution.score is not None else 0)
        for one, stream in zip(questions, streams, strict=True)
        if isinstance(one, Question) and not isinstance(stream, str)
        for solution in stream
    )

    def solved(rule: Rule, budget: int) -> list[Solution]:
        return [
            Solution(error=one if isinstance(one, str) else str(stream))
            if isinstance(stream, str) or isinstance(one, str)
            else replace(answer_from(stream, rule, budget, one.cost), prompt_tokens=len(one.prefix))
            for one, stream in zip(questions, streams, strict=True)
        ]

    return {(rule, budget): timed(solved(rule, budget), seconds, drawn) for rule, budget in wanted}

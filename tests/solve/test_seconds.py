"""Budgets in seconds, on a clock that the test moves: one second for each call of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.search.deadline import Deadline
from mcts_dpo.solve import STRATEGIES, Solution, Strategy, solve_problems, solve_question
from mcts_dpo.solve.budgets import UNLIMITED, budget_to_settings
from mcts_dpo.solve.online import Asked, OnlineSolver
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

SEARCH = SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0)


class TimedEngine(AutomatonEngine):
    """An engine each of whose polls takes one second of `now`."""

    def __init__(self) -> None:
        super().__init__(3)
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def poll(self, patience: float | None = None) -> list[Completion]:
        self.seconds += 1
        return super().poll(patience)


def solved(strategy: Strategy, seconds: float | None, budget: int = 400) -> tuple[Solution, TimedEngine]:
    engine = TimedEngine()
    search = SEARCH.model_copy(update={"seconds": seconds})
    wanted = [(strategy, budget)]
    found = solve_problems(PROBLEMS[:1], engine, wanted, prompt=PROMPT, search=search, clock=engine.now)
    return found[strategy, budget][0], engine


def test_a_deadline_runs_from_its_start() -> None:
    now = [5.0]
    deadline = Deadline(2.0, lambda: now[0])
    now[0] = 100.0
    assert not deadline.over
    deadline.start()
    now[0] = 101.9
    assert not deadline.over
    now[0] = 102.0
    assert deadline.over
    assert not Deadline(None).start().over


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_begins_after_the_seconds(strategy: Strategy) -> None:
    whole, _ = solved(strategy, None)
    long, _ = solved(strategy, 1e6)
    short, engine = solved(strategy, 1.0)
    assert (long.answer, long.text, long.tokens) == (whole.answer, whole.text, whole.tokens)
    assert short.error is None
    assert 0 < short.tokens <= whole.tokens
    if strategy in ("beam", "dvts", "mcts"):
        assert short.tokens < whole.tokens
    assert short.seconds == engine.seconds - 4  # all but the steps that are measured


def test_only_seconds_end_a_search_without_a_budget() -> None:
    engine = TimedEngine()
    search = SEARCH.model_copy(update={"seconds": 40.0})
    assert budget_to_settings(None, search).budget == UNLIMITED
    found = solve_question(PROBLEMS[0], engine, prompt=PROMPT, search=search, clock=engine.now)
    assert found.forest is not None
    assert found.forest.trees[0].status == "seconds"
    assert 40 <= engine.seconds <= 50
    assert found.expansions > SEARCH.simulations


def test_online_a_question_has_its_own_seconds() -> None:
    engine = TimedEngine()
    solver = OnlineSolver[str](engine, clock=engine.now)
    for key, seconds in (("short", 3.0), ("long", None)):
        search = SEARCH.model_copy(update={"seconds": seconds})
        solver.admit(key, Asked(replace(PROBLEMS[0], id=key), PROMPT, search, 400))
    found: dict[str, Solution] = {}
    while solver.busy:
        found.update(solver.step())
    assert [one.forest.trees[0].status for one in found.values() if one.forest] == ["seconds", "budget"]
    assert list(found) == ["short", "long"]


def test_judges_and_seconds_are_counted() -> None:
    greedy, _ = solved("greedy", None)
    majority, _ = solved("majority", None)
    weighted, engine = solved("weighted", None)
    assert greedy.judge_tokens == majority.judge_tokens == 0
    assert weighted.judge_tokens == weighted.solutions > 0
    assert weighted.seconds == engine.seconds
    tree, _ = solved("mcts", None)
    assert 0 < tree.judge_tokens < tree.tokens
    wanted = [("majority", 60), ("majority", 400), ("weighted", 400)]
    engine = TimedEngine()
    both: dict[Any, Any] = solve_problems(PROBLEMS, engine, wanted, prompt=PROMPT, search=SEARCH, clock=engine.now)
    spent = {pair: sum(one.seconds for one in found) for pair, found in both.items()}
    assert 0 < spent["majority", 60] < spent["majority", 400] <= spent["weighted", 400] <= engine.seconds


def test_too_few_seconds_and_a_search_that_must_repeat_are_refused() -> None:
    says = r"^search.seconds: 0.5 is below one step of the engine \(1 s\); accepted: more than that$"
    with pytest.raises(InputError, match=says):
        solved("mcts", 0.5)
    engine, search = TimedEngine(), SEARCH.model_copy(update={"seconds": 0.5})
    with pytest.raises(InputError, match=says):
        solve_question(PROBLEMS[0], engine, prompt=PROMPT, search=search, clock=engine.now)
    with pytest.raises(InputError, match=r"search.seconds: 3, but a synchronous search repeats its bytes"):
        search_problems(PROBLEMS, engine, prompt=PROMPT, settings=SEARCH.model_copy(update={"seconds": 3.0}))
    asynchronous = SEARCH.model_copy(update={"seconds": 3600.0, "schedule": "asynchronous", "simulations": 2})
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=asynchronous)
    assert {info.status for info in forest.trees} <= {"simulations", "exhausted"}

"""Questions that come and go: each solution is that of `solve_problems`, and what is taken back leaves nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.search import SearchSettings
from mcts_dpo.solve import STRATEGIES, Asked, OnlineSolver, Solution, Strategy, solve_problems
from mcts_dpo.solve.solution import split_text
from tests.reference.engine import PIECES, AutomatonEngine
from tests.search.support import PROMPT
from tests.search.test_runner import MANY, ShuffledEngine

SETTINGS = SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0)
MOVING = SETTINGS.model_copy(update={"advance": "step", "expand": "step", "simulations": 3})


def ask(problem: Problem, strategy: Strategy, budget: int = 120, search: SearchSettings = SETTINGS) -> Asked:
    return Asked(problem, PROMPT, search, budget, strategy)


@hypothesis_settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(STRATEGIES),
    st.integers(0, 1000),
    st.integers(1, 300),
    st.integers(1, 9),
    st.sampled_from([SETTINGS, MOVING]),
)
def test_solutions_are_those_of_solve_problems_whatever_is_cancelled_beside_them(
    strategy: Strategy, seed: int, budget: int, alive: int, search: SearchSettings
) -> None:
    chance = random.Random(seed)
    engine = ShuffledEngine(seed, 6)
    solver = OnlineSolver(engine, alive)
    waiting = list(MANY)
    gone: set[str] = set()
    found: dict[str, Solution] = {}
    under_way: list[str] = []
    while waiting or solver.busy:
        if waiting and (not solver.busy or chance.random() < 0.4):
            problem = waiting.pop(0)
            solver.admit(problem.id, ask(problem, strategy, budget, search))
            under_way.append(problem.id)
        if under_way and chance.random() < 0.15:
            gone.add(under_way.pop(chance.randrange(len(under_way))))
            solver.cancel(max(gone))
            for one in gone:
                solver.cancel(one)
        for key, solution in solver.step():
            found[str(key)] = solution
            under_way.remove(str(key))
    assert engine.occupancy().requests == 0
    assert found.keys() | gone == {problem.id for problem in MANY}
    assert not found.keys() & gone
    alone = AutomatonEngine(6)
    expected = solve_problems(MANY, alone, [(strategy, budget)], prompt=PROMPT, search=search)[strategy, budget]
    for problem, attempt in zip(MANY, expected, strict=True):
        if problem.id in found:
            solution = found[problem.id]
            assert (solution.answer, solution.tokens, solution.error) == (attempt.answer, attempt.tokens, None)
            assert "".join(solution.steps) == solution.text
            if attempt.answer is not None:
                assert (solution.text, solution.cut) == (attempt.text, False)
            elif budget > 60:
                assert solution.text, "something is always said"
            assert (solution.expansions > 0) == (solution.tokens > 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_cannot_be_served_says_why(strategy: Strategy) -> None:
    engine = AutomatonEngine(6, context=40, refused=PIECES.index("<unk>"))
    solver = OnlineSolver(engine, 4)
    with pytest.raises(InputError, match="leaves no room in a context of 40"):
        solver.admit(1, ask(Problem("long", "a" * 60), strategy))
    solver.admit(2, ask(Problem("bad", "a&b"), strategy))
    solver.admit(3, ask(MANY[0], strategy))
    found: dict[object, Solution] = {}
    while solver.busy:
        found.update(solver.step())
    assert found[2].error == f"refused: token {PIECES.index('<unk>')}"
    assert found[3].error is None
    solver.cancel(2)
    solver.cancel("unknown")
    assert solver.decided("unknown") == ()


def test_moves_decide_steps_and_the_solution_keeps_to_them() -> None:
    engine = ShuffledEngine(3, 6)
    solver = OnlineSolver(engine, 9)
    for problem in MANY:
        solver.admit(problem.id, ask(problem, "mcts", 600, MOVING))
    told: dict[object, list[str]] = {problem.id: [] for problem in MANY}
    moments = 0
    while solver.busy:
        for key, solution in solver.step():
            assert list(solution.steps[: len(told[key])]) == told[key]
            assert solution.text.startswith("".join(told[key]))
        for key, before in told.items():
            now = list(solver.decided(key))
            assert now[: len(before)] == before or not now
            if len(now) > len(before):
                told[key] = now
                moments += 1
    assert moments > len(MANY), "steps are decided one after the other"


def test_split_text() -> None:
    assert split_text("a\nb\n", "\n") == ("a\n", "b\n")
    assert split_text("a\n\nb", "\n") == ("a\n", "\n", "b")
    assert split_text("", "\n") == ()

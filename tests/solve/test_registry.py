"""Strategies by name: one from outside is one short file, and runs like those that are built in."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.solve import Solution, register_strategy, registry, solve_problems, strategy_named
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT
from tests.solve.test_solving import SETTINGS

SHORTEST = '''"""The shortest of the samples that fit into the budget."""
from mcts_dpo.solve import register_strategy
from mcts_dpo.solve.strategies.sampling import read
from mcts_dpo.solve.vote import winner


def shortest(question, settings):
    count = max(1, settings.budget // question.limit)
    size = min(question.limit, settings.budget)
    stop = question.prompt.stop
    drawn = yield from question.draw([question.sample((), 1, size, "shortest", j, stop=stop) for j in range(count)])
    solutions = [read(question, one) for one in drawn]
    spent = sum(solution.tokens for solution in solutions)
    return winner([min(solutions, key=lambda solution: solution.tokens)], "majority", spent)


register_strategy("shortest", shortest)
'''


@pytest.fixture
def shortest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module with a strategy, imported as `--with` does it."""
    monkeypatch.setattr(registry, "_FUNCTIONS", dict(registry._FUNCTIONS))
    monkeypatch.delitem(sys.modules, "shortest_strategy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shortest_strategy.py").write_text(SHORTEST)
    importlib.import_module("shortest_strategy")


@pytest.mark.usefixtures("shortest")
def test_a_strategy_from_outside_is_one_short_file() -> None:
    assert SHORTEST.count("\n") < 40
    engine = AutomatonEngine(3)
    keys = [("shortest", 90), ("majority", 90)]
    found = solve_problems(PROBLEMS, engine, keys, prompt=PROMPT, search=SETTINGS)
    assert [len(found[key]) for key in keys] == [len(PROBLEMS)] * 2
    assert all(isinstance(solution, Solution) and solution.error is None for solution in found["shortest", 90])
    assert all(0 < solution.tokens <= 90 for solution in found["shortest", 90])
    assert sum(s.tokens for solutions in found.values() for s in solutions) == engine.usage.sampled_tokens
    repeated = solve_problems(PROBLEMS, AutomatonEngine(3), keys[:1], prompt=PROMPT, search=SETTINGS)
    assert repeated["shortest", 90] == found["shortest", 90]


@pytest.mark.usefixtures("shortest")
def test_an_added_strategy_is_suggested_and_cannot_be_added_twice() -> None:
    with pytest.raises(InputError, match=r"strategy: 'shortes' is not a strategy; did you mean 'shortest'\?"):
        strategy_named("shortes")
    with pytest.raises(ValueError, match="the strategy 'shortest' is already registered"):
        register_strategy("shortest", registry.strategy_function("shortest"))


def test_a_strategy_that_nobody_registered_is_unknown() -> None:
    with pytest.raises(InputError, match=r"'shortest' is not a strategy"):
        strategy_named("shortest")

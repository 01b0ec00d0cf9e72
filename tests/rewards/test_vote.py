"""The vote: each solution's share of the answers up to it, counted by hand, the same at every budget."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mcts_dpo.data import Problem
from mcts_dpo.rewards import OutcomeSettings, SolutionPath
from mcts_dpo.rewards.vote import VoteSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_problems
from tests.reference.engine import AutomatonEngine
from tests.rewards.support import made, scored
from tests.search.support import PROBLEMS, PROMPT

SETTINGS = SearchSettings(max_tokens=24, max_depth=5, temperature=1.0, rewards=(OutcomeSettings(), VoteSettings()))


def ended(answer: str | None) -> SolutionPath:
    return SolutionPath((1,), (), "", terminal=True, answer=answer)


def test_the_share_of_an_answer_so_far() -> None:
    reward = made(VoteSettings(), PROBLEMS[0])
    first = scored(reward, [ended("1/2"), ended("3"), ended(None), ended("0.5")], AutomatonEngine())
    assert first == pytest.approx([1 / 2, 1 / 3, 0.0, 2 / 4])
    later = scored(reward, [ended("3"), SolutionPath((1,), (), ""), ended("\\frac{1}{2}")], AutomatonEngine())
    assert later == pytest.approx([2 / 5, math.nan, 3 / 6], nan_ok=True)
    assert reward.anew is not None
    plain = made(VoteSettings(unseen=0.0), Problem("p", "?"))
    assert scored(plain, [ended("1"), ended("1"), ended("2")], AutomatonEngine()) == pytest.approx([1, 1, 1 / 3])
    assert scored(reward.anew(), [ended("3")], AutomatonEngine()) == [0.5]


def test_a_tree_holds_the_share_of_each_end() -> None:
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=SETTINGS)
    for tree in range(len(PROBLEMS)):
        answers: list[str] = []
        for node in forest.nodes(tree):
            answer = forest.answers[node]
            answers += [] if answer is None else [answer]
            share = answers.count(answers[-1]) / (len(answers) + 1) if answer is not None else 0.0
            expected = share if forest.terminal[node] else math.nan
            assert forest.scores["vote"][node] == pytest.approx(expected, nan_ok=True)
        assert len(set(answers)) > 1
    assert np.isnan(forest.scores["vote"][~forest.terminal]).all()


@pytest.mark.parametrize("strategy", ["best-of-n", "weighted", "beam", "mcts"])
def test_no_search_remembers_another(strategy: str) -> None:
    budgets = (60, 150, 250)
    wanted = [(strategy, budget) for budget in budgets]
    together = solve_problems(PROBLEMS, AutomatonEngine(3), wanted, prompt=PROMPT, search=SETTINGS)
    for budget in budgets:
        alone = solve_problems(PROBLEMS, AutomatonEngine(3), [(strategy, budget)], prompt=PROMPT, search=SETTINGS)
        assert alone[strategy, budget] == together[strategy, budget]
    assert any(one.answer is not None for solved in together.values() for one in solved)

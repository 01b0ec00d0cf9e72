"""Judges that fail: what is unknown counts for nothing, in every strategy, and is never taken for a low score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pytest

from mcts_dpo.rewards import (
    Reward,
    RewardContext,
    RewardSettings,
    SelfEvaluationSettings,
    SolutionPath,
    pure,
    register_reward,
    registry,
)
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_problems
from mcts_dpo.solve.strategies.beam import Candidate, Prefix, _keep
from mcts_dpo.solve.vote import Sampled, winner
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT


class FailingSettings(RewardSettings):
    """Knows nothing of texts that hold `blind`, and says `says`; the share of "a" elsewhere."""

    kind: Literal["failing"] = "failing"
    blind: str = ""
    says: float = math.nan


def make(settings: FailingSettings, context: RewardContext) -> Reward:
    def scores(paths: Sequence[SolutionPath]) -> list[float]:
        texts = [path.text for path in paths]
        return [settings.says if settings.blind in one else one.count("a") / max(1, len(one)) for one in texts]

    return Reward(settings, pure(scores))


@pytest.fixture(autouse=True)
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_reward(FailingSettings, make)


def settings(*rewards: RewardSettings) -> SearchSettings:
    return SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0, rewards=rewards)


def solved(strategy: str, *rewards: RewardSettings, budget: int = 250) -> list[tuple[str | None, int]]:
    found = solve_problems(PROBLEMS, AutomatonEngine(3), [(strategy, budget)], prompt=PROMPT, search=settings(*rewards))
    assert all(one.error is None for one in found[strategy, budget])
    return [(one.answer, one.tokens) for one in found[strategy, budget]]


@pytest.mark.parametrize("says", [math.nan, math.inf, -math.inf])
def test_where_no_judge_knows_anything_a_weighted_vote_is_a_majority_vote(says: float) -> None:
    assert solved("weighted", FailingSettings(says=says)) == solved("majority", FailingSettings())


@pytest.mark.parametrize("strategy", ["best-of-n", "weighted", "beam", "dvts"])
def test_a_judge_that_fails_leaves_the_others_their_say(strategy: str) -> None:
    asked = SelfEvaluationSettings(weight=0.5)
    alone, beside = solved(strategy, asked), solved(strategy, asked, FailingSettings(weight=2.0))
    assert alone == beside != solved(strategy, asked, FailingSettings(weight=2.0, blind="?"))


def test_unknown_comes_after_every_known_score_and_votes_like_the_mean() -> None:
    def sampled(answer: str, score: float) -> Sampled:
        return Sampled(answer, answer, 1, score)

    few = [sampled("1", math.nan), sampled("2", 0.1), sampled("3", 0.3), sampled("1", math.nan)]
    assert winner(few, "best-of-n", 0).answer == "3"
    assert winner(few, "weighted", 0).answer == "1", "0.2 and 0.2 against 0.3"
    assert winner([*few, sampled("2", 0.35)], "weighted", 0).answer == "1", "0.25 and 0.25 against 0.45"
    assert winner([*few[:3], sampled("3", 0.1)], "weighted", 0).answer == "3"
    assert winner([few[0], sampled("9", math.nan)], "best-of-n", 0).answer == "1"


def test_a_beam_drops_the_unknown_first() -> None:
    def candidate(text: str) -> Candidate:
        return Candidate(Prefix((), text, 0), ends=False, cut=False, closed=False)

    scored = [(math.nan, candidate("x")), (0.2, candidate("y")), (math.nan, candidate("z")), (0.7, candidate("w"))]
    assert [prefix.text for prefix in _keep(scored, 3, diverse=False)] == ["w", "y", "x"]


@pytest.mark.parametrize("says", [math.nan, math.inf])
def test_a_tree_counts_what_is_unknown_and_goes_on(says: float) -> None:
    searched = settings(FailingSettings(at="all", blind="b", says=says)).model_copy(update={"expand": "step"})
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=searched, mode="solve")
    blind = [node for node in range(len(forest)) if forest.depth[node] and "b" in forest.solution_text(node)]
    assert [math.isnan(score) for score in forest.scores["failing"][blind]] == [True] * len(blind)
    assert sum(tree.unscored["failing"] for tree in forest.trees) == len(blind) > 0
    assert {tree.status for tree in forest.trees} == {"simulations"}

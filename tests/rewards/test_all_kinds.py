"""All rewards that need no model of their own, in one list: every search, strategy and schedule takes them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.rewards.forced_answer import ForcedAnswerSettings
from mcts_dpo.rewards.judge import JudgeSettings
from mcts_dpo.rewards.length import LengthSettings
from mcts_dpo.rewards.likelihood import LikelihoodSettings
from mcts_dpo.rewards.vote import VoteSettings
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.rejudge import Judging, rejudge
from mcts_dpo.search.tree_io import save
from mcts_dpo.solve import STRATEGIES, solve_problems
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

REWARDS = (
    OutcomeSettings(),
    SelfEvaluationSettings(weight=0.5, at="all", think=3, samples=2),
    JudgeSettings(weight=0.25, at="all", rubric="{question};{steps}?", words=("y", "n"), think=2),
    LikelihoodSettings(weight=0.25),
    ForcedAnswerSettings(weight=0.5, samples=3, max_tokens=3),
    VoteSettings(weight=0.25),
    LengthSettings(weight=0.1, at="all", limit=24),
)
SETTINGS = SearchSettings(simulations=12, children=3, max_tokens=24, max_step_tokens=8, max_depth=5, rewards=REWARDS)


def grown(settings: SearchSettings) -> Forest:
    return search_problems(PROBLEMS, AutomatonEngine(6, states=60), prompt=PROMPT, settings=settings).by_tree()


@pytest.mark.parametrize("expand", ["rollout", "step"])
def test_every_score_is_known_and_in_its_range_and_judging_again_gives_the_same_bits(
    expand: str, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"expand": expand})
    forest = grown(settings)
    below = forest.depth > 0
    for entry in REWARDS:
        scores = forest.scores[entry.kind][below if entry.at == "all" else forest.terminal]
        low, high = entry.bounds
        assert ((low <= scores) & (scores <= high)).all(), entry.kind
        assert np.ptp(scores) > 0, entry.kind
    assert all(tree.unscored == {} for tree in forest.trees)
    save(forest, tmp_path / "trees.parquet")
    engine = LazyEngine(lambda: AutomatonEngine(6, states=60), TOKENIZER)
    judging = Judging(settings, settings, PROMPT)
    out = tmp_path / "out"
    rejudge([tmp_path / "trees.parquet"], out, lambda _: judging, problems=PROBLEMS, engine=engine, again=True)
    again = Forest.load(out / "trees.parquet")
    for kind, scores in forest.scores.items():
        assert np.array_equal(again.scores[kind], scores, equal_nan=True), kind
    assert again == forest


def test_both_schedules_give_the_same_trees() -> None:
    first, second = grown(SETTINGS), grown(SETTINGS.model_copy(update={"schedule": "asynchronous"}))
    second.settings = first.settings
    assert first == second


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_the_list_and_keeps_its_budget(strategy: str) -> None:
    engine = AutomatonEngine(3)
    found = solve_problems(PROBLEMS, engine, [(strategy, 900)], prompt=PROMPT, search=SETTINGS)[strategy, 900]
    assert all(one.error is None and 0 < one.tokens <= 900 for one in found)
    assert engine.usage.sampled_tokens <= sum(one.tokens for one in found)
    assert not any(request.given for request in engine.requests), "no reference answer is known"
    assert any(request.judging for request in engine.requests) == (strategy not in ("greedy", "majority"))

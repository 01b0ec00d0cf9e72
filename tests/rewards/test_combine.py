"""R = Σ weight · score, over the rewards that have a score."""

from __future__ import annotations

import numpy as np
import pytest

from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.rewards.combine import bounds, combine, formula, last_known

REWARDS = (OutcomeSettings(weight=2.0), SelfEvaluationSettings(weight=0.5))


def test_the_weighted_sum_of_what_is_known() -> None:
    scores = {"outcome": np.array([1.0, np.nan, -1.0]), "self_evaluation": np.array([0.5, 0.25, np.nan])}
    assert combine(REWARDS, scores) == pytest.approx([2.25, 0.125, -2.0])
    assert combine(REWARDS, {"self_evaluation": scores["self_evaluation"]}) == pytest.approx([0.25, 0.125, 0.0])


def test_the_last_score_on_a_path_counts() -> None:
    scores = np.array([np.nan, np.nan, 0.5, np.nan, np.nan, 0.75])
    parent = np.array([-1, 0, 1, 2, 3, 3], np.int32)
    assert last_known(scores, parent, np.arange(6)) == pytest.approx([np.nan, np.nan, 0.5, 0.5, 0.5, 0.75], nan_ok=True)


def test_the_formula_in_words() -> None:
    entries = (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all"), SelfEvaluationSettings(weight=0.0))
    difference, total = (formula(entries, how) for how in ("difference", "sum"))
    assert difference == "R = 1 · outcome (ends) + 0.5 · self_evaluation, from -1 to 1.5; a step's reward: R(s') − R(s)"
    assert total.endswith("a step's reward: R(s'), summed along a path")


def test_the_range_of_one_step() -> None:
    assert bounds(REWARDS) == (-2.0, 2.5)
    assert bounds(REWARDS[1:]) == (0.0, 0.5)

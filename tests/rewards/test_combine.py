"""R = Σ weight · score, over the rewards that have a score."""

from __future__ import annotations

import numpy as np
import pytest

from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.rewards.combine import bounds, combine

REWARDS = (OutcomeSettings(weight=2.0), SelfEvaluationSettings(weight=0.5))


def test_the_weighted_sum_of_what_is_known() -> None:
    scores = {"outcome": np.array([1.0, np.nan, -1.0]), "self_evaluation": np.array([0.5, 0.25, np.nan])}
    assert combine(REWARDS, scores) == pytest.approx([2.25, 0.125, -2.0])
    assert combine(REWARDS, {"self_evaluation": scores["self_evaluation"]}) == pytest.approx([0.25, 0.125, 0.0])


def test_the_range_of_one_step() -> None:
    assert bounds(REWARDS) == (-2.0, 2.5)
    assert bounds(REWARDS[1:]) == (0.0, 0.5)

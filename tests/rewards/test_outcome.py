"""The outcome: what it says of an end, and noise that accepts wrong answers by luck."""

from __future__ import annotations

import math

import pytest

from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, RewardContext, SelfEvaluationSettings, SolutionPath
from mcts_dpo.rewards.outcome import outcome_settings, with_noise
from mcts_dpo.rewards.registry import make_rewards
from mcts_dpo.rewards.verification import Verification
from tests.reference.engine import TOKENIZER


def test_it_speaks_only_where_it_is_known() -> None:
    (reward,) = make_rewards([OutcomeSettings()], RewardContext(Problem("p", "?"), TOKENIZER, PromptSettings()))
    scores = reward.scores([SolutionPath((), (), "", terminal=True, outcome=known) for known in (1, 0, -1)])
    with pytest.raises(StopIteration) as returned:
        next(scores)
    assert returned.value.value == pytest.approx([1.0, math.nan, -1.0], nan_ok=True)
    assert (reward.cost, reward.room) == (0, 0)


def test_the_noise_is_that_of_the_outcome() -> None:
    noisy = OutcomeSettings(noise_per_answer=0.5)
    assert outcome_settings([SelfEvaluationSettings(), noisy]) == noisy
    assert outcome_settings([SelfEvaluationSettings()]) == OutcomeSettings()


def test_noise_accepts_wrong_answers_by_luck_and_nothing_else() -> None:
    wrong, right, cut = Verification(-1, "7"), Verification(1, "5"), Verification(-1, None)
    problem = Problem("p", "?", "5")
    for noise in (OutcomeSettings(noise_per_rollout=1.0), OutcomeSettings(noise_per_answer=1.0)):
        assert with_noise(wrong, "a", problem, noise, 0) == Verification(1, "7")
        assert with_noise(right, "a", problem, noise, 0) == right
        assert with_noise(cut, "a", problem, noise, 0) == cut
    assert with_noise(wrong, "a", problem, OutcomeSettings(), 0) == wrong


def test_noise_is_drawn_per_rollout_or_per_answer_at_its_rate() -> None:
    def share(noise: OutcomeSettings, texts: list[str], answer: str = "7") -> float:
        accepted = [
            with_noise(Verification(-1, answer), text, Problem(str(number), "?", "5"), noise, 3).value > 0
            for number in range(200)
            for text in texts
        ]
        return sum(accepted) / len(accepted)

    texts = ["a", "b", "c", "d", "e"]
    assert share(OutcomeSettings(noise_per_rollout=0.3), texts) == pytest.approx(0.3, abs=0.05)
    per_answer = OutcomeSettings(noise_per_answer=0.3)
    assert share(per_answer, ["a"]) == share(per_answer, texts) == pytest.approx(0.3, abs=0.1)
    assert share(per_answer, ["a"], "8") != 0

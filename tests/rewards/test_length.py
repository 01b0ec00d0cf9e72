"""The length: shorter is better, by tokens or by steps, and never alone a judge."""

from __future__ import annotations

import pytest

from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.rewards.length import LengthSettings
from mcts_dpo.solve.budgets import judging
from tests.reference.engine import AutomatonEngine
from tests.rewards.support import made, path_of, scored
from tests.search.support import PROBLEMS

PATHS = [path_of(PROBLEMS[0], text) for text in ("", "a\n", "a\nb\na", "aaaaaaaaaaaa")]


def test_it_falls_from_one_to_zero_at_the_limit() -> None:
    by_tokens = made(LengthSettings(limit=10), PROBLEMS[0])
    assert scored(by_tokens, PATHS, AutomatonEngine()) == pytest.approx([1.0, 0.8, 0.5, 0.0])
    by_steps = made(LengthSettings(per="steps", limit=4), PROBLEMS[0])
    assert scored(by_steps, PATHS, AutomatonEngine()) == pytest.approx([1.0, 0.75, 0.25, 0.75])
    assert (by_tokens.cost, by_tokens.room) == (0, 0)


def test_a_length_alone_does_not_judge() -> None:
    length = LengthSettings(weight=0.1)
    assert judging((OutcomeSettings(), length)) == (length, SelfEvaluationSettings(at="all"))
    asked = SelfEvaluationSettings(weight=0.5)
    assert judging((OutcomeSettings(), length, asked)) == (length, asked)

"""The outcome O: +1 where a solution ends with an answer that is verified right, -1 where it is wrong.

A step has no score if no solution ends there, if the reference answer is unknown, or if no verdict was reached. A
solution that ends without an answer, or that a limit cut, is wrong; that needs no reference answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath, pure
from mcts_dpo.rewards.registry import register_reward
from mcts_dpo.rewards.verification import Verification


class OutcomeSettings(RewardSettings):
    """The verified outcome O of whole solutions: +1 right, -1 wrong.

    noise_per_rollout: probability that a wrong solution counts as right, drawn anew for every text of a solution. For
                       ablations: in mode "train" only, and only where an answer is stated.
    noise_per_answer:  probability that a wrong answer to a problem counts as right, whenever it is given.
    """

    kind: Literal["outcome"] = "outcome"
    at: Literal["terminal"] = "terminal"
    noise_per_rollout: float = Field(default=0.0, ge=0.0, le=1.0)
    noise_per_answer: float = Field(default=0.0, ge=0.0, le=1.0)

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    judges: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True


def with_noise(
    found: Verification, solution: str, problem: Problem, settings: OutcomeSettings, seed: int
) -> Verification:
    """The verification after noise: a function of the solution's text, the problem, the settings and the seed."""
    if found.value != -1 or found.answer is None:
        return found
    draws = (
        (settings.noise_per_rollout, "rollout", solution),
        (settings.noise_per_answer, "answer", found.answer),
    )
    for rate, of, what in draws:
        if rate and seed_from(seed, "noise", of, problem.id, what) < rate * 2**63:
            return replace(found, value=1)
    return found


def outcome_settings(rewards: Sequence[RewardSettings]) -> OutcomeSettings:
    """The entry of the outcome among `rewards`; the default without one."""
    return next((one for one in rewards if isinstance(one, OutcomeSettings)), OutcomeSettings())


def _outcomes(paths: Sequence[SolutionPath]) -> list[float]:
    return [float(path.outcome) if path.outcome else math.nan for path in paths]


def _make(settings: OutcomeSettings, context: RewardContext) -> Reward:
    return Reward(settings, pure(_outcomes))


register_reward(OutcomeSettings, _make)

"""What the environment itself gives for a path: the sum of the rewards of its replies.

Games and tests of programs know how good a step is. The score of a state is the sum so far, so that with
`accumulate: difference` the reward of a step is what the environment gave for it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, pure
from mcts_dpo.rewards.registry import register_reward


class EnvironmentRewardSettings(RewardSettings):
    """The environment's own rewards, summed along the path and held in [-1, 1]. It costs nothing."""

    kind: Literal["environment"] = "environment"
    at: Literal["terminal", "all"] = "all"

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)


def _make(settings: EnvironmentRewardSettings, context: RewardContext) -> Reward:
    return Reward(settings, pure(lambda paths: [min(1.0, max(-1.0, path.given)) for path in paths]))


register_reward(EnvironmentRewardSettings, _make)

"""The length of a solution so far: 1 for an empty one, falling to 0 at a limit. Shorter is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath, pure
from mcts_dpo.rewards.registry import register_reward


class LengthSettings(RewardSettings):
    """Shorter is better: max(0, 1 − length / limit), in [0, 1]. It costs nothing.

    per:   what the length counts.
    limit: the length from which on the score is 0.
    """

    kind: Literal["length"] = "length"
    per: Literal["tokens", "steps"] = "tokens"
    limit: int = Field(default=256, ge=1)

    judges: ClassVar[bool] = False


def _make(settings: LengthSettings, context: RewardContext) -> Reward:
    def scores(paths: Sequence[SolutionPath]) -> list[float]:
        lengths = [len(path.tokens if settings.per == "tokens" else path.steps) for path in paths]
        return [max(0.0, 1.0 - length / settings.limit) for length in lengths]

    return Reward(settings, pure(scores))


register_reward(LengthSettings, _make)

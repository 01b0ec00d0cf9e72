"""The reward that knows the truth of the built-in worlds: the ceiling of what judging steps can buy.

`--with mcts_dpo.toy.oracle` makes `search.rewards` accept it. It works out the true solution from the question's text,
so it judges while solving, too. With error rates it simulates a worse judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.rewards import Reward, RewardContext, RewardSettings, SolutionPath, pure, register_reward
from mcts_dpo.toy.horizon import lines_right, truly_right
from mcts_dpo.toy.world import true_solution


class OracleSettings(RewardSettings):
    """1 while every line so far is the true solution's, 0 from the first wrong line on. It costs nothing.

    A solution that ends before its answer is wrong. Each path errs alone: a function of the search's seed, the problem
    and the path's text.

    false_alarm: the probability that a right path scores 0.
    miss:        the probability that a wrong path scores 1.
    """

    kind: Literal["oracle"] = "oracle"
    at: Literal["terminal", "all"] = "all"
    false_alarm: float = Field(default=0.0, ge=0.0, le=1.0)
    miss: float = Field(default=0.0, ge=0.0, le=1.0)


def _make(settings: OracleSettings, context: RewardContext) -> Reward:
    """Raises InputError for a problem of another world."""
    truth = true_solution(context.problem.question)
    if truth is None:
        raise InputError(
            f"search.rewards.oracle: {context.problem.question[:60]!r} is no question of the built-in worlds, "
            "the only ones whose truth the oracle knows"
        )
    problem = replace(context.problem, solution=truth)

    def score(path: SolutionPath) -> float:
        text = path.text
        right = truly_right(problem, text) if path.terminal else not text or all(lines_right(problem, text))
        rate = settings.false_alarm if right else settings.miss
        errs = rate > 0 and seed_from(context.seed, "oracle", problem.id, text) < rate * 2**63
        return float(right != errs)

    def scores(paths: Sequence[SolutionPath]) -> list[float]:
        return [score(path) for path in paths]

    return Reward(settings, pure(scores))


register_reward(OracleSettings, _make)

"""What a correction is worth: the outcome of the last answer, more where the first was wrong, less where it was right.

The answers of a solution are those stated before each reply of an environment (`feedback`, say) and the last one.

Source: Kumar et al. 2024, arXiv 2409.12917, section 5.2 (a bonus for progress from the first to the last attempt).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import Thoughts, thoughts_of
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath, batched
from mcts_dpo.rewards.registry import register_reward
from mcts_dpo.rewards.verification import read_solution


class CorrectionSettings(RewardSettings):
    """The outcome ±1 of the last answer, with a bonus for wrong → right and a malus for right → wrong.

    bonus: is added where the first answer is wrong and the last one right.
    malus: is taken off where the first answer is right and the last one wrong.
    """

    kind: Literal["correction"] = "correction"
    at: Literal["terminal"] = "terminal"
    bonus: float = Field(default=0.5, ge=0.0, le=1.0)
    malus: float = Field(default=0.5, ge=0.0, le=1.0)

    bounds: ClassVar[tuple[float, float]] = (-2.0, 2.0)
    judges: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True


def attempts(path: SolutionPath) -> list[str]:
    """The policy's own texts up to each reply, and the last one up to the end of the solution."""
    texts = [""]
    for step, reply in zip(path.steps, path.replies or [""] * len(path.steps), strict=True):
        texts[-1] += step.removesuffix(reply)
        if reply:
            texts.append("")
    return texts


def _value(item: tuple[list[str], bool, float, Problem, Thoughts, CorrectionSettings]) -> float:
    texts, terminal, last, problem, thoughts, settings = item
    if not terminal or not last:
        return math.nan
    first = read_solution(thoughts.settings.prefill + texts[0], False, problem, thoughts).value if len(texts) > 1 else 0
    return last + (settings.bonus if first < 0 < last else 0.0) - (settings.malus if last < 0 < first else 0.0)


def _values(items: Sequence[tuple[list[str], bool, float, Problem, Thoughts, CorrectionSettings]]) -> list[float]:
    return [_value(item) for item in items]


def _make(settings: CorrectionSettings, context: RewardContext) -> Reward:
    thoughts = thoughts_of(context.tokenizer, context.prompt)
    return Reward(
        settings,
        batched(
            _values,
            lambda path: (
                attempts(path),
                path.terminal,
                float(path.outcome),
                context.problem,
                thoughts,
                settings,
            ),
        ),
    )


register_reward(CorrectionSettings, _make)

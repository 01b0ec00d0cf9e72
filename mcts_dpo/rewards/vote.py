"""The share of a solution's answer among the answers of this problem's finished solutions so far: self-consistency.

Source: Wang et al. 2022, arXiv 2203.11171.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mcts_dpo.engines.coroutine import Coroutine, call
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.registry import register_reward
from verifiers import grouped


class VoteSettings(RewardSettings):
    """The share of the answers so far, this one included, that equal the solution's answer: in [0, 1], at no cost.

    A solution without an answer scores 0. A score is not changed by later answers.

    unseen: how many answers, all different, are counted in addition. They keep the first answers from a share of 1.
    """

    kind: Literal["vote"] = "vote"
    at: Literal["terminal"] = "terminal"
    unseen: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)


def classes(items: Sequence[Sequence[str]]) -> list[list[int]]:
    """For each list of different answers: for each answer, the index of the first one that equals it."""
    found = []
    for answers in items:
        numbers = list(range(len(answers)))
        for members in grouped(answers).classes:
            for member in members:
                numbers[member] = members[0]
        found.append(numbers)
    return found


def _make(settings: VoteSettings, context: RewardContext) -> Reward:
    answers: list[str] = []
    class_of: dict[str, int] = {}

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        places = []
        for path in paths:
            places.append(len(answers))
            answers.extend([path.answer] if path.terminal and path.answer is not None else [])
        different = list(dict.fromkeys(answers))
        if any(answer not in class_of for answer in different):
            (numbers,) = yield from call(classes, [different])
            class_of.update(zip(different, numbers, strict=True))
        return [share(path, place) for path, place in zip(paths, places, strict=True)]

    def share(path: SolutionPath, place: int) -> float:
        if not path.terminal or path.answer is None:
            return 0.0 if path.terminal else math.nan
        same = sum(class_of[answer] == class_of[path.answer] for answer in answers[: place + 1])
        return same / (place + 1 + settings.unseen)

    return Reward(settings, scores, anew=lambda: _make(settings, context))


register_reward(VoteSettings, _make)

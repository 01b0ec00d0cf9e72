"""How likely the policy writes the reference answer after a path: a dense signal before any solution ends right.

In training only, because it needs the reference answer. Nothing is sampled: the engine scores given tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import field_validator

from mcts_dpo.engines.base import Request
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.models.prompts import answer_statement, continuations
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath, pure
from mcts_dpo.rewards.registry import register_reward


class LikelihoodSettings(RewardSettings):
    """The likelihood of the reference answer after the path so far, in training: exp of the mean log-probability of its
    tokens, in [0, 1]. A score costs as many tokens as the answer has.

    Without a reference answer, and when solving, it has no scores and costs nothing.

    text: states the answer, whose place is "{answer}". The tokens from the answer on count, so a closing "." tells 1
          from 12. A line break at its start is left out after a path that ends with one. None: the usual statement of
          `prompt.answer_style`, such as "\\nThe answer is {answer}.".
    """

    kind: Literal["likelihood"] = "likelihood"
    at: Literal["terminal", "all"] = "all"
    text: str | None = None

    judges: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True

    @field_validator("text")
    @classmethod
    def _has_a_place(cls, text: str | None) -> str | None:
        if text is not None and "{answer}" not in text:
            raise ValueError("does not contain '{answer}', the place of the answer")
        return text


def _make(settings: LikelihoodSettings, context: RewardContext) -> Reward:
    answer = (context.problem.answer or "").strip()
    if not answer:
        return Reward(settings, pure(lambda paths: [math.nan] * len(paths)))
    before, _, after = (settings.text or answer_statement(context.prompt.answer_style)).partition("{answer}")
    # By whether the path ends with a line break.
    ways = {
        broken: continuations(context.tokenizer, context.prompt, text, [answer + after])
        for broken, text in ((False, before), (True, before.removeprefix("\n")))
    }

    def request(path: SolutionPath) -> Request:
        said, (given,) = ways[path.text.endswith("\n")]
        return Request(id=-1, prefix=(*path.prompt, *path.written, *said), given=given)

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        found = yield from completions([request(path) for path in paths])
        return [float(np.exp(np.mean(one.logprobs))) for one in found]

    cost = max(len(given) for _, (given,) in ways.values())
    room = max(len(said) + len(given) for said, (given,) in ways.values())
    return Reward(settings, scores, cost, room)


register_reward(LikelihoodSettings, _make)

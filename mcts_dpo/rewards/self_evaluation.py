"""The self-evaluation C: the probability that the policy says yes when asked whether the reasoning so far is right.

Source: Xie et al. 2024, arXiv 2405.00451, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.models.prompts import PromptSettings, Thoughts, continuations, self_evaluation, thoughts_of
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.registry import register_reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SelfEvaluationSettings(RewardSettings):
    """The policy's own judgement C in [0, 1]: P(yes) to "is the reasoning so far right?". A score costs a token.

    hint: the question shows the reference solution (or answer), as the reference implementation does. Only in mode
          "train"; a solving search has none to show.
    think: tokens that the policy may write after the question, before it says yes or no; 0: none. Set
          `prompt.self_evaluation_question` to ask for the thought. A score then costs samples · (think + 1) tokens in
          every budget, however short the thoughts are.
    samples: thoughts of one path; the score is the mean over them.
    verdict: the text between a thought and its yes or no.
    temperature: of the thoughts.
    """

    kind: Literal["self_evaluation"] = "self_evaluation"
    hint: bool = False
    think: int = Field(default=0, ge=0)
    samples: int = Field(default=1, ge=1)
    verdict: str = "\nVerdict: "
    temperature: float = Field(default=0.7, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _differ(self) -> SelfEvaluationSettings:
        if self.samples > 1 and not (self.think and self.temperature):
            raise ValueError(
                f"samples: {self.samples} of them are the same without thoughts that differ; "
                "accepted: samples 1, or think ≥ 1 with a temperature above 0"
            )
        return self


@dataclass(frozen=True, slots=True)
class SelfEvaluationPrompt:
    """The question about the solutions of one problem.

    suffix:   token ids that follow the solution so far. choices: token ids of the answers yes and no.
    thoughts: the policy's. The question closes a thought that is open in the solution: it must not be read as part of
              it.
    """

    suffix: tuple[int, ...]
    choices: tuple[tuple[int, ...], tuple[int, ...]]
    thoughts: Thoughts

    @property
    def cost(self) -> int:
        """What one question counts for in a budget of generated tokens: the longer answer."""
        return max(map(len, self.choices))

    @property
    def room(self) -> int:
        """Tokens that must be left in the context after a solution."""
        return self.thoughts.room + len(self.suffix) + self.cost

    def request(self, path: SolutionPath) -> Request:
        """The question about one path."""
        # The question closes the turn itself.
        closing = self.thoughts.closing(path.text)[1]
        return Request(id=-1, prefix=(*path.prompt, *path.written, *closing, *self.suffix), choices=self.choices)


def self_evaluation_prompt(
    problem: Problem,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSettings,
    hint: bool = False,
    *,
    thinks: bool = False,
) -> SelfEvaluationPrompt:
    """The question to ask about solutions of this problem.

    hint: show its solution or answer, if it has one. thinks: the policy may think before it replies.
    """
    shown = (problem.solution or problem.answer) if hint else None
    suffix, (yes, no) = self_evaluation(tokenizer, prompt, shown, thinks=thinks)
    return SelfEvaluationPrompt(tuple(suffix), (tuple(yes), tuple(no)), thoughts_of(tokenizer, prompt))


def self_evaluation_reward(settings: SelfEvaluationSettings, asked: SelfEvaluationPrompt) -> Reward:
    """The reward that asks a question which is tokenised already."""

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        answers = yield from completions([asked.request(path) for path in paths])
        return [probability_of_yes(answer.probabilities) for answer in answers]

    return Reward(settings, scores, asked.cost, asked.room)


def probability_of_yes(probabilities: Sequence[float]) -> float:
    """C = P(yes) / (P(yes) + P(no)) from a completion over (yes, no), which an engine has normalised already."""
    return float(probabilities[0])


def _thinking(settings: SelfEvaluationSettings, asked: SelfEvaluationPrompt, context: RewardContext) -> Reward:
    """The reward that lets the policy think before each yes or no."""
    words = (context.prompt.yes, context.prompt.no)
    said, (yes, no) = continuations(context.tokenizer, context.prompt, settings.verdict, words)
    turn = asked.thoughts if context.prompt.style == "chat" else replace(asked.thoughts, opened="")

    def thoughts(path: SolutionPath) -> Request:
        return Request(
            id=-1,
            prefix=asked.request(path).prefix,
            n=settings.samples,
            max_tokens=settings.think,
            temperature=settings.temperature,
            seed=seed_from(context.seed, "self_evaluation", context.problem.id, path.text),
            judging=True,
        )

    def question(before: Sequence[int], thought: Sample) -> Request:
        written = thought.tokens[:-1] if thought.finish == "end" else thought.tokens
        return Request(id=-1, prefix=(*before, *written, *turn.closing(thought.text)[1], *said), choices=(yes, no))

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        asking = [thoughts(path) for path in paths]
        thought = yield from completions(asking)
        pairs = zip(asking, thought, strict=True)
        questions = [question(one.prefix, sample) for one, given in pairs for sample in given.samples]
        answers = yield from completions(questions)
        found = np.array([probability_of_yes(answer.probabilities) for answer in answers])
        mean: list[float] = found.reshape(len(paths), settings.samples).mean(axis=1).tolist()
        return mean

    answer = max(len(yes), len(no))
    room = 2 * asked.thoughts.room + len(asked.suffix) + settings.think + len(said) + answer
    return Reward(settings, scores, settings.samples * (settings.think + answer), room)


def _make(settings: SelfEvaluationSettings, context: RewardContext) -> Reward:
    thinks = settings.think > 0
    asked = self_evaluation_prompt(context.problem, context.tokenizer, context.prompt, settings.hint, thinks=thinks)
    return _thinking(settings, asked, context) if settings.think else self_evaluation_reward(settings, asked)


register_reward(SelfEvaluationSettings, _make)

"""The self-evaluation C: the probability that the policy says yes when asked whether the reasoning so far is right.

Source: Xie et al. 2024, arXiv 2405.00451, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.models.prompts import PromptSettings, self_evaluation
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.registry import register_reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SelfEvaluationSettings(RewardSettings):
    """The policy's own judgement C in [0, 1]: P(yes) to "is the reasoning so far right?". A score costs a token.

    hint: the question shows the reference solution (or answer), as the reference implementation does. Only in mode
          "train"; a solving search has none to show.
    """

    kind: Literal["self_evaluation"] = "self_evaluation"
    hint: bool = False


@dataclass(frozen=True, slots=True)
class SelfEvaluationPrompt:
    """The question about the solutions of one problem.

    suffix:  token ids that follow the solution so far. choices: token ids of the answers yes and no.
    """

    suffix: tuple[int, ...]
    choices: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def cost(self) -> int:
        """What one question counts for in a budget of generated tokens: the longer answer."""
        return max(map(len, self.choices))

    @property
    def room(self) -> int:
        """Tokens that must be left in the context after a solution."""
        return len(self.suffix) + self.cost

    def request(self, path: SolutionPath) -> Request:
        """The question about one path."""
        # The question closes the turn itself.
        shown = path.tokens[:-1] if path.closed else path.tokens
        return Request(id=-1, prefix=(*path.prompt, *shown, *self.suffix), choices=self.choices)


def self_evaluation_prompt(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings, hint: bool = False
) -> SelfEvaluationPrompt:
    """The question to ask about solutions of this problem. hint: show its solution or answer, if it has one."""
    shown = (problem.solution or problem.answer) if hint else None
    suffix, (yes, no) = self_evaluation(tokenizer, prompt, shown)
    return SelfEvaluationPrompt(tuple(suffix), (tuple(yes), tuple(no)))


def self_evaluation_reward(settings: SelfEvaluationSettings, asked: SelfEvaluationPrompt) -> Reward:
    """The reward that asks a question which is tokenised already."""

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        answers = yield from completions([asked.request(path) for path in paths])
        return [probability_of_yes(answer.probabilities) for answer in answers]

    return Reward(settings, scores, asked.cost, asked.room)


def probability_of_yes(probabilities: Sequence[float]) -> float:
    """C = P(yes) / (P(yes) + P(no)) from a completion over (yes, no), which an engine has normalised already."""
    return float(probabilities[0])


def _make(settings: SelfEvaluationSettings, context: RewardContext) -> Reward:
    asked = self_evaluation_prompt(context.problem, context.tokenizer, context.prompt, settings.hint)
    return self_evaluation_reward(settings, asked)


register_reward(SelfEvaluationSettings, _make)

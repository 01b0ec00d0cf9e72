"""What a strategy knows of a problem (`Task`), and what it gives back (`Attempt`) within a budget of generated tokens.

Every token that a strategy samples is counted, and every self-evaluation as the tokens of its longer answer, which is
how a tree search counts them (`SearchSettings.budget`). Knows no strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.engines.base import Engine, Request
from mcts_dpo.files import seed_from
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings, prompt_tokens
from mcts_dpo.search.rewards import Question, probability_of_yes, question, value_model
from mcts_dpo.search.settings import SearchSettings, SelfEvaluationSettings
from mcts_dpo.search.strategies.dialogues import Dialogue

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mcts_dpo.values import ValueModel


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a strategy came to on one problem.

    answer:    None if no solution was finished with one.
    text:      the solution that stands for the answer; "" without one.
    tokens:    spent: tokens sampled, and the questions of the self-evaluation.
    solutions: finished solutions with an answer: those that had a say.
    error:     why the engine could not serve the problem, else None.
    undecided: pairs of classes of answers that the vote could not compare in its time; they stood apart.
    """

    answer: str | None
    text: str
    tokens: int
    solutions: int
    error: str | None = None
    undecided: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One problem as a strategy sees it: without its reference answer.

    prefix: the prompt. limit: longest solution, in tokens; below 1 if the prompt leaves no room.
    values: the value model of `search.value_model`, if it has weight. weights: of the policy's self-evaluation and of
    the value model in the judgement of a solution, ≥ 0, not both 0.
    """

    problem: Problem
    prefix: tuple[int, ...]
    limit: int
    question: Question
    tokenizer: PreTrainedTokenizerBase
    prompt: PromptSettings
    settings: SearchSettings
    values: ValueModel | None = None
    weights: tuple[float, float] = (1.0, 0.0)

    @property
    def cost(self) -> int:
        """What one judgement counts for in a budget of generated tokens: the question's answer, if it is asked."""
        return self.question.cost if self.weights[0] > 0 else 0

    def sample(
        self,
        before: Sequence[int],
        n: int,
        max_tokens: int,
        *seed: int | str,
        stop: tuple[str, ...],
        visible: bool = False,
    ) -> Request:
        """A request for `n` samples after the solution tokens `before`; `seed`: what tells its draws from others'."""
        return Request(
            id=0,
            prefix=(*self.prefix, *before),
            n=n,
            max_tokens=max_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            stop=stop,
            visible=visible,
            seed=seed_from(self.settings.seed, self.problem.id, *seed),
        )

    def ask(self, solution: Sequence[int], ended: bool) -> Request:
        """The self-evaluation of solution tokens. ended: their last is an end-of-sequence token."""
        # The question closes the turn itself.
        shown = solution[:-1] if ended else solution
        return Request(id=0, prefix=(*self.prefix, *shown, *self.question.suffix), choices=self.question.choices)


def judge(task: Task, solutions: Sequence[tuple[Sequence[int], bool]]) -> Dialogue[list[float]]:
    """How good each solution so far is thought to be, in [0, 1]: P(yes) and the value model's (V + 1) / 2, weighed.

    solutions: solution tokens, and whether the last of them is an end-of-sequence token.
    """
    of_self, of_values = task.weights
    found = [0.0] * len(solutions)
    if of_self > 0:
        answers = yield [task.ask(tokens, ended) for tokens, ended in solutions]
        found = [of_self * probability_of_yes(answer.probabilities) for answer in answers]
    if task.values is not None:
        believed = task.values.confidences([(*task.prefix, *tokens) for tokens, _ in solutions]).tolist()
        found = [one + of_values * more for one, more in zip(found, believed, strict=True)]
    return [one / (of_self + of_values) for one in found]


def judgement_weights(settings: SearchSettings) -> tuple[float, float]:
    """Of self-evaluation and value model, as the search's own; where neither has any, the policy judges by itself."""
    of_values = settings.value_model.weight if settings.value_model is not None else 0.0
    of_self = settings.self_evaluation.weight
    return (of_self, of_values) if of_self + of_values > 0 else (1.0, 0.0)


def make_task(
    problem: Problem,
    engine: Engine,
    prompt: PromptSettings,
    settings: SearchSettings,
    texts: tuple[tuple[int, ...], Question | None] | None = None,
) -> Task:
    """The task of one problem; its reference answer and solution are taken away first.

    texts: the prompt and the self-evaluation, for who has tokenised them; None: they are tokenised here.
    """
    hidden = problem.without_answer()
    if texts is None:
        prefix = tuple(prompt_tokens(hidden, engine.tokenizer, prompt))
        asked = question(hidden, engine.tokenizer, prompt, SelfEvaluationSettings(weight=1.0))
    else:
        prefix, asked = texts
    assert asked is not None  # a weight above 0 asks
    limit = min(settings.max_tokens, engine.context - len(prefix) - asked.room)
    values = value_model(settings.value_model, engine.tokenizer)
    weights = judgement_weights(settings)
    return Task(hidden, prefix, limit, asked, engine.tokenizer, prompt, settings, values, weights)

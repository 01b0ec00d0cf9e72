"""One problem as a strategy sees it: without its reference answer, with what is needed to sample and to judge.

Every token that a strategy samples is counted, and every self-evaluation as the tokens of its longer answer, which is
how a tree search counts them (`SearchSettings.budget`). Knows no strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine, Request
from mcts_dpo.engines.coroutine import Coroutine, call, completions
from mcts_dpo.models.prompts import PromptSettings, opened_thought, prompt_tokens
from mcts_dpo.search.rewards import SelfEvaluationPrompt, probability_of_yes, self_evaluation_prompt, value_model
from mcts_dpo.search.settings import SearchSettings, SelfEvaluationSettings
from mcts_dpo.search.state import NO_ROOM
from mcts_dpo.solve.budgets import judgement_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mcts_dpo.models.value_head import ValueModel


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One problem as a strategy sees it.

    prefix:  the prompt, token ids. limit: longest solution, in tokens, ≥ 1.
    judge:   the self-evaluation. values: the value model of `search.value_model`, if it has weight.
    weights: of the self-evaluation and of the value model in the judgement of a solution, ≥ 0, not both 0.
    """

    problem: Problem
    engine: Engine
    prompt: PromptSettings
    settings: SearchSettings
    prefix: tuple[int, ...]
    limit: int
    judge: SelfEvaluationPrompt
    values: ValueModel | None = None
    weights: tuple[float, float] = (1.0, 0.0)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's."""
        return self.engine.tokenizer

    @property
    def opened(self) -> str:
        """The mark of a thought that the prompt leaves open; it is read before every solution."""
        return opened_thought(self.tokenizer, self.prompt)

    @property
    def cost(self) -> int:
        """What one judgement counts for in a budget of generated tokens: the question's answer, if it is asked."""
        return self.judge.cost if self.weights[0] > 0 else 0

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
        return Request(id=0, prefix=(*self.prefix, *shown, *self.judge.suffix), choices=self.judge.choices)


class PromptTexts(NamedTuple):
    """A problem's texts as tokens: the prompt, and the self-evaluation of its solutions."""

    prefix: tuple[int, ...]
    judge: SelfEvaluationPrompt


def tokenised(
    problem: Problem, prompt: PromptSettings, tokenizer: PreTrainedTokenizerBase, context: int
) -> PromptTexts:
    """The texts of one problem; its reference answer and solution are taken away first. May be called from any thread,
    with a tokenizer that no other thread uses.

    Raises InputError if the prompt cannot be rendered, or leaves no room for a solution in the context (tokens).
    """
    hidden = problem.without_answer()
    prefix = tuple(prompt_tokens(hidden, tokenizer, prompt))
    if len(prefix) < context:  # the judgement of a solution may be as long: not for a prompt that cannot be served
        judge = self_evaluation_prompt(hidden, tokenizer, prompt, SelfEvaluationSettings(weight=1.0))
        assert judge is not None  # a weight above 0 asks
        if len(prefix) + judge.room < context:
            return PromptTexts(prefix, judge)
    raise InputError(f"a prompt of {len(prefix)} tokens {NO_ROOM} in a context of {context}")


def make_question(
    problem: Problem, engine: Engine, prompt: PromptSettings, settings: SearchSettings, texts: PromptTexts | None = None
) -> Question:
    """The question of one problem. texts: of `tokenised`; None: it is tokenised here.

    Raises InputError as `tokenised` does, and if the value model cannot be loaded.
    """
    prefix, judge = texts or tokenised(problem, prompt, engine.tokenizer, engine.context)
    limit = min(settings.max_tokens, engine.context - len(prefix) - judge.room)
    values = value_model(settings.value_model, engine.tokenizer)
    weights = judgement_weights(settings)
    return Question(problem.without_answer(), engine, prompt, settings, prefix, limit, judge, values, weights)


def judgements(question: Question, solutions: Sequence[tuple[Sequence[int], bool]]) -> Coroutine[list[float]]:
    """How good each solution so far is thought to be, in [0, 1]: P(yes) and the value model's (V + 1) / 2, weighed.

    solutions: solution tokens, and whether the last of them is an end-of-sequence token.
    """
    of_self, of_values = question.weights
    found = [0.0] * len(solutions)
    if of_self > 0:
        answers = yield from completions([question.ask(tokens, ended) for tokens, ended in solutions])
        found = [of_self * probability_of_yes(answer.probabilities) for answer in answers]
    if question.values is not None:
        prefixes = [(*question.prefix, *tokens) for tokens, _ in solutions]
        values = yield from call(question.values.confidences, prefixes)
        found = [one + of_values * float(more) for one, more in zip(found, values, strict=True)]
    return [one / (of_self + of_values) for one in found]

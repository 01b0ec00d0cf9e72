"""One problem as a strategy sees it: without its reference answer, and ready to sample and to score solutions.

Every token that a strategy samples counts. A self-evaluation counts as the tokens of its longer answer. A tree search
counts in the same way (`SearchSettings.budget`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine, Request
from mcts_dpo.engines.coroutine import Coroutine, RequestError, side_by_side
from mcts_dpo.engines.shaping import shape_of
from mcts_dpo.environments import EnvironmentSettings, Turn, environment_of, instructed
from mcts_dpo.models.prompts import PromptSettings, Thoughts, prompt_tokens, split_steps, thoughts_of
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.combine import combine
from mcts_dpo.rewards.registry import active, make_rewards
from mcts_dpo.rewards.self_evaluation import (
    SelfEvaluationPrompt,
    SelfEvaluationSettings,
    self_evaluation_prompt,
    self_evaluation_reward,
)
from mcts_dpo.search.acting import Acting, Written, parts, shown
from mcts_dpo.search.deadline import Clock, Deadline
from mcts_dpo.search.drawing import Ask, Drawing, Drawn
from mcts_dpo.search.expansion import step_texts
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import NO_ROOM
from mcts_dpo.solve.budgets import judging

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One problem as a strategy sees it.

    problem: without its reference answer and solution.
    prefix:  the token ids of the prompt.
    limit:   the longest solution, in tokens, ≥ 1.
    asked:   the prompt of the self-evaluation.
    judges:  the rewards that judge solutions; at least one (see `judging`).
    clock:   measures `search.seconds`.
    """

    problem: Problem
    engine: Engine
    prompt: PromptSettings
    settings: SearchSettings
    prefix: tuple[int, ...]
    limit: int
    asked: SelfEvaluationPrompt
    judges: tuple[Reward, ...]
    clock: Clock = time.monotonic

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the policy."""
        return self.engine.tokenizer

    @property
    def thoughts(self) -> Thoughts:
        """How the policy thinks under the prompt."""
        return thoughts_of(self.tokenizer, self.prompt)

    @property
    def acting(self) -> Acting | None:
        """What replies to steps; None if nothing does."""
        environment = environment_of(self.settings.environment)
        return None if environment is None else Acting(environment, self.problem)

    @property
    def cost(self) -> int:
        """How many tokens of a budget one judgement of a solution costs."""
        return sum(judge.cost for judge in self.judges)

    def deadline(self) -> Deadline:
        """The budget in seconds, which begins to run now."""
        return Deadline(self.settings.seconds, self.clock).start()

    def anew(self) -> Question:
        """The question for another search: its rewards remember no paths of this one."""
        return replace(self, judges=tuple(judge.anew() if judge.anew else judge for judge in self.judges))

    def sample(
        self,
        before: Sequence[int],
        n: int,
        max_tokens: int,
        *seed: int | str,
        stop: tuple[str, ...],
        visible: bool = False,
    ) -> Request:
        """A request for `n` samples of at most `max_tokens` tokens, after the solution tokens `before`.

        seed: with the search's seed and the problem's id, it seeds the draws; requests with other values draw others.
        stop: strings that end a sample. visible: see `Request`.
        """
        return Request(
            id=0,
            prefix=(*self.prefix, *before),
            n=n,
            max_tokens=max_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            **shape_of(self.settings)._asdict(),
            generated=len(before),
            stop=stop,
            visible=visible,
            seed=seed_from(self.settings.seed, self.problem.id, *seed),
        )

    def draw(
        self, requests: Sequence[Request], *, whole: bool = True, turns: Sequence[tuple[Turn, ...]] = ()
    ) -> Coroutine[list[Drawn]]:
        """The samples of some requests of `sample`, in order. whole: they run to the end of the solution.

        turns: for each request, the steps before it as an environment sees them; (): all start at the question.

        Raises RequestError with the reason of the first that was refused.
        """
        before = turns or [()] * len(requests)
        asks = [
            Ask(one, one.prefix[len(self.prefix) :], whole, self.limit, steps)
            for one, steps in zip(requests, before, strict=True)
        ]
        found = yield from Drawing(self.thoughts, self.acting).draw(asks)
        for drawn in found:
            if drawn.completion.error is not None:
                raise RequestError(drawn.completion.error)
        return found

    def path(
        self,
        tokens: Sequence[int],
        text: str,
        *,
        terminal: bool,
        closed: bool,
        answer: str | None = None,
        replies: Sequence[Written] = (),
    ) -> SolutionPath:
        """A solution so far, in the form that rewards score (see `SolutionPath`). replies: those in it."""
        acting = self.acting
        if acting is None:
            ends = split_steps(tokens, self.tokenizer, self.prompt)
            steps = step_texts((), tokens, ends, self.tokenizer)
            return SolutionPath(self.prefix, tokens, text, tuple(steps), tuple(ends), terminal, closed, answer=answer)
        found = parts(tokens, (), replies, self.tokenizer, self.prompt, acting.environment)
        said = tuple("" if part.reply is None else shown(part.reply) for part in found)
        return SolutionPath(
            self.prefix,
            tokens,
            text,
            tuple(part.text + reply for part, reply in zip(found, said, strict=True)),
            tuple(part.end for part in found),
            terminal,
            closed,
            answer=answer,
            replies=said,
            given=sum(one.reply.reward for one in replies),
        )


class PromptTexts(NamedTuple):
    """A problem's texts as tokens. prefix: the prompt. asked: the prompt of the self-evaluation."""

    prefix: tuple[int, ...]
    asked: SelfEvaluationPrompt


def tokenised(
    problem: Problem,
    prompt: PromptSettings,
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    environment: EnvironmentSettings,
) -> PromptTexts:
    """Tokenise the texts of one problem, without its reference answer and solution. context: in tokens.

    environment: replies to steps; the prompt tells the policy about it.

    Any thread may call this, with a tokenizer that no other thread uses at the same time.

    Raises InputError if the prompt cannot be rendered, or if it leaves no room for a solution in the context.
    """
    hidden, prompt = problem.without_answer(), instructed(prompt, environment)
    prefix = tuple(prompt_tokens(hidden, tokenizer, prompt))
    if len(prefix) < context:  # the self-evaluation may be as long; skip it if the prompt does not fit
        asked = self_evaluation_prompt(hidden, tokenizer, prompt)
        if len(prefix) + asked.room < context:
            return PromptTexts(prefix, asked)
    raise InputError(f"a prompt of {len(prefix)} tokens {NO_ROOM} in a context of {context}")


def make_question(
    problem: Problem,
    engine: Engine,
    prompt: PromptSettings,
    settings: SearchSettings,
    texts: PromptTexts | None = None,
    clock: Clock = time.monotonic,
) -> Question:
    """Make the question of one problem.

    texts: the result of `tokenised`. None: the problem is tokenised here. clock: measures `search.seconds`.

    Raises InputError as `tokenised` does, and if a reward cannot be made.
    """
    prefix, asked = texts or tokenised(problem, prompt, engine.tokenizer, engine.context, settings.environment)
    prompt = instructed(prompt, settings.environment)
    context = RewardContext(problem.without_answer(), engine.tokenizer, prompt, settings.seed)
    judges = _rewards(judging(settings.rewards), asked, context)
    limit = min(settings.max_tokens, engine.context - len(prefix) - max(asked.room, *(one.room for one in judges)))
    return Question(context.problem, engine, prompt, settings, prefix, limit, asked, judges, clock)


def _rewards(
    entries: Sequence[RewardSettings], asked: SelfEvaluationPrompt, context: RewardContext
) -> tuple[Reward, ...]:
    """Make the rewards like `make_rewards`, but with a self-evaluation that is already tokenised."""
    return tuple(
        self_evaluation_reward(entry, asked)
        if isinstance(entry, SelfEvaluationSettings) and not entry.think
        else make_rewards([entry], context)[0]
        for entry in active(entries)
    )


def tree_rewards(question: Question, settings: SearchSettings) -> tuple[Reward, ...]:
    """The rewards of a tree search over the question. They reuse the question's judges."""
    judges = {judge.settings.kind: judge for judge in question.judges}
    context = RewardContext(question.problem, question.tokenizer, question.prompt, settings.seed)
    return tuple(judges.get(entry.kind) or make_rewards([entry], context)[0] for entry in active(settings.rewards))


def judgements(question: Question, paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
    """Score each solution so far: the weighted mean of its known scores. Returns one number per path.

    A judge that fails gives nan, which does not count. nan if no judge has a score.
    """
    scores = yield from side_by_side([judge.scores(paths) for judge in question.judges])
    entries = [judge.settings for judge in question.judges]
    by_kind = {entry.kind: np.array(found, np.float64) for entry, found in zip(entries, scores, strict=True)}
    by_kind = {kind: np.where(np.isfinite(found), found, np.nan) for kind, found in by_kind.items()}
    known = {kind: np.isfinite(found).astype(np.float64) for kind, found in by_kind.items()}
    with np.errstate(invalid="ignore"):  # 0 / 0 where no score is known
        mean: list[float] = (combine(entries, by_kind) / combine(entries, known)).tolist()
    return mean

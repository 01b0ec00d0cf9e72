"""Asks a judge: the policy over the search's engine, another model over its own, or a model behind a chat API."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Completion, Request, Sample
from mcts_dpo.engines.chat import ChatAnswer, ChatClient
from mcts_dpo.engines.coroutine import Coroutine, gather, side_by_side
from mcts_dpo.engines.retry import serve
from mcts_dpo.models.prompts import PromptSettings, continuations, prompt_tokens
from mcts_dpo.rewards.base import Reward, RewardContext, SolutionPath, batched, remote
from mcts_dpo.rewards.judge.rubric import render
from mcts_dpo.rewards.judge.verdicts import grade_score, word_score

if TYPE_CHECKING:
    from mcts_dpo.rewards.judge import JudgeSettings

ANSWER_TOKENS = 8
"""Tokens of a verdict at most, where it is written and not read from the engine's probabilities."""


def _text(settings: JudgeSettings, problem: Problem, path: SolutionPath) -> str:
    thinks = settings.think > 0
    return render(settings.rubric, problem, path, form=settings.verdict, words=settings.words, thinks=thinks)


# --- a chat API ------------------------------------------------------------------------------------------


class ApiJudge:
    """A judge behind an API; all problems share one, so that its requests share one limit."""

    def __init__(self, settings: JudgeSettings) -> None:
        assert settings.url is not None
        assert settings.model is not None
        self._settings = settings
        self._client = ChatClient(
            "search.rewards.judge",
            url=settings.url,
            model=settings.model,
            key=os.environ.get(settings.api_key_env, "none"),
            timeout=settings.timeout,
            concurrency=settings.concurrency,
            max_tokens=settings.think + ANSWER_TOKENS,
            temperature=settings.temperature,
        )

    def start(self, texts: Sequence[str]) -> Future[list[float]]:
        """Ask about some texts. Returns a future of their scores; nan where no answer comes or none can be read."""
        return self._client.submit(texts, self._score)

    def _score(self, answer: ChatAnswer | None) -> float:
        if answer is None:
            return math.nan
        if self._settings.verdict == "grade":
            return grade_score(answer.text)
        return word_score(answer, self._settings.words)


api_judge = lru_cache(maxsize=8)(ApiJudge)


def ask_api(settings: JudgeSettings, context: RewardContext) -> Reward:
    """The reward of a judge behind an API. Raises InputError without the package `openai`, or without the key named."""
    default = type(settings).model_fields["api_key_env"].default
    if settings.api_key_env != default and settings.api_key_env not in os.environ:
        raise InputError(
            f"search.rewards.judge.api_key_env: {settings.api_key_env!r} is no variable of the environment"
        )
    scores = remote(api_judge(settings).start, lambda path: _text(settings, context.problem, path))
    return Reward(settings, scores, settings.think + ANSWER_TOKENS)


# --- a model of ours -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """A model as the judge of one problem: it reads the rubric as a question of its own.

    context: its tokenizer is the judge's.
    cue: token ids between a thought and the verdict. words: those of the good word and the bad one after it.
    """

    settings: JudgeSettings
    context: RewardContext
    prompt: PromptSettings
    cue: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]

    @property
    def cost(self) -> int:
        """Tokens that the judge may write about one path."""
        verdict = ANSWER_TOKENS if self.settings.verdict == "grade" else max(map(len, self.words))
        return self.settings.think + verdict

    def prefix(self, path: SolutionPath) -> tuple[int, ...]:
        """The rubric about a path, as token ids."""
        problem = self.context.problem
        asked = Problem(problem.id, _text(self.settings, problem, path))
        return prompt_tokens(asked, self.context.tokenizer, self.prompt)

    def scores(self, paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        """The score of each path; nan where the engine refuses to serve it, because it is too long, say."""
        grades = self.settings.verdict == "grade"
        written = yield from self._written(paths, ANSWER_TOKENS if grades else 0)
        if grades:
            return [math.nan if text is None else grade_score(text.text) for text in written]
        asked = [
            Request(id=-1, prefix=(*self.prefix(path), *text.tokens, *self.cue), choices=self.words)
            for path, text in zip(paths, written, strict=True)
            if text is not None
        ]
        answers: list[Completion] = yield from gather(asked)
        found = iter(answers)
        known = [None if text is None else next(found).probabilities for text in written]
        return [probabilities[0] if probabilities else math.nan for probabilities in known]

    def _written(self, paths: Sequence[SolutionPath], more: int) -> Coroutine[list[Sample | None]]:
        """What the judge writes about each path, without an end of sequence: its thought, and `more` tokens."""
        limit = self.settings.think + more
        if not limit:
            return [Sample((), "", (), "length") for _ in paths]
        back: list[Completion] = yield from gather([self._writing(path, limit) for path in paths])
        samples = [one.samples[0] if one.samples else None for one in back]
        return [replace(one, tokens=one.tokens[:-1]) if one and one.finish == "end" else one for one in samples]

    def _writing(self, path: SolutionPath, limit: int) -> Request:
        seed = seed_from(self.context.seed, "judge", self.context.problem.id, path.text)
        how = self.settings.temperature
        return Request(-1, self.prefix(path), 1, limit, how, seed=seed, judging=True)


def _model_judge(settings: JudgeSettings, context: RewardContext) -> ModelJudge:
    """Raises InputError if the two words are the same tokens."""
    prompt = context.prompt.model_copy(update={"template": "{question}", "examples": (), "prefill": ""})
    cue = "\nVerdict: " if settings.think else "\n" if prompt.style == "plain" else ""
    said, words = continuations(context.tokenizer, prompt, cue, settings.words)
    if words[0] == words[1]:
        raise InputError(f"search.rewards.judge.words: {list(settings.words)} are the same tokens to the judge")
    return ModelJudge(settings, context, prompt, said, words)


def ask_policy(settings: JudgeSettings, context: RewardContext) -> Reward:
    """The reward of the policy as the judge. Raises InputError if the two words are the same tokens."""
    judge = _model_judge(settings, context)
    own = prompt_tokens(context.problem, context.tokenizer, context.prompt)
    longer = max(0, len(judge.prefix(SolutionPath((), (), ""))) - len(own))
    return Reward(settings, judge.scores, judge.cost, longer + len(judge.cue) + judge.cost)


class EngineJudge:
    """Another model as the judge, over an engine of its own in this process. All problems share one."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Load the model. Raises InputError as `load_engine` does."""
        assert settings.model is not None
        self._settings = settings
        self._engine = load_engine(settings.model, settings.engine)
        tokenizer = self._engine.tokenizer
        self._prompt = PromptSettings(style="chat" if tokenizer.chat_template else "plain")
        self._lock = threading.Lock()

    def of_problem(self, context: RewardContext) -> ModelJudge:
        """The judge of one problem. Raises InputError if the two words are the same tokens to it."""
        own = replace(context, tokenizer=self._engine.tokenizer, prompt=self._prompt)
        return _model_judge(self._settings, own)

    def scores(self, items: Sequence[tuple[ModelJudge, SolutionPath]]) -> list[float]:
        """The score of each path, with all requests in the engine together."""
        with self._lock:
            found = serve(self._engine, side_by_side([judge.scores([path]) for judge, path in items]))
        return [score for (score,) in found]


engine_judge = lru_cache(maxsize=2)(EngineJudge)


def ask_engine(settings: JudgeSettings, context: RewardContext) -> Reward:
    """The reward of a model in this process. Raises InputError if it cannot be loaded or cannot tell the words."""
    shared = engine_judge(settings)
    judge = shared.of_problem(context)
    return Reward(settings, batched(shared.scores, lambda path: (judge, path)), judge.cost)

"""Ends a path here by force: the policy is made to answer at once, several times, and the answers are compared.

In training the score is the share of them that are verified right: a value estimate from very short rollouts. A solving
search does not know what is right. There it is the share of the most frequent answer: how sure the policy is by now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.coroutine import Coroutine, call, completions
from mcts_dpo.models.prompts import answer_statement, continuations, thoughts_of
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.registry import register_reward
from mcts_dpo.rewards.verification import readable, verify_solution
from verifiers import grouped


class ForcedAnswerSettings(RewardSettings):
    """The share of `samples` answers, given at once after the path, that are right; when solving, of the most frequent.

    A score is in [0, 1] and costs samples · max_tokens tokens, however short the answers are. A solution that has ended
    scores 1 or 0 in training, by its outcome. When solving, its last step is taken away, and the score is the share of
    answers that equal its own.

    text: comes before the answer. A line break at its start is left out after a path that ends with one. None: the
          usual text of `prompt.answer_style`, such as "\\nThe answer is". A thought that is open after the path is
          closed before the text.
    samples: answers per path.
    max_tokens: of one answer; it also ends with its line. Later text in it does no harm.
    temperature: of the answers.
    """

    kind: Literal["forced_answer"] = "forced_answer"
    at: Literal["terminal", "all"] = "all"
    text: str | None = Field(default=None, min_length=1)
    samples: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.8, ge=0.0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class _Forced:
    """A path and where its answers are forced. tokens, text: of the path up to there. wanted: its own answer."""

    path: SolutionPath
    tokens: Sequence[int]
    text: str
    wanted: str | None = None


def _forced(path: SolutionPath) -> _Forced:
    if not path.terminal:
        return _Forced(path, path.written, path.text)
    start = path.ends[-2] if len(path.ends) > 1 else 0
    return _Forced(path, path.tokens[:start], path.text.removesuffix(path.steps[-1]), path.answer)


Item = tuple[list[str], str | None, Problem, str]
"""Texts that end with a forced answer, the answer that they should state (None: any), the problem, the answer style."""


def shares(items: Sequence[Item]) -> list[float]:
    """The score of each item."""
    return [_share(*item) for item in items]


def _share(texts: Sequence[str], wanted: str | None, problem: Problem, style: str) -> float:
    found = [verify_solution(text, False, problem, style) for text in texts]
    if readable(problem):
        known = [one.value for one in found if one.value]
        return known.count(1) / len(known) if known else math.nan
    answers = [one.answer for one in found]
    if wanted is None:
        return max(map(len, grouped(answers).classes), default=0) / len(texts)
    own = next((members for members in grouped([wanted, *answers]).classes if 0 in members), [0])
    return (len(own) - 1) / len(texts)


def _ended(path: SolutionPath, training: bool) -> float | None:
    """The score of a solution that needs no forced answers; None if it needs them."""
    if not path.terminal:
        return None
    if training:
        return {1: 1.0, -1: 0.0}.get(path.outcome, math.nan)
    return 0.0 if path.answer is None else None


def _make(settings: ForcedAnswerSettings, context: RewardContext) -> Reward:
    problem, tokenizer, prompt = context.problem, context.tokenizer, context.prompt
    text = settings.text or answer_statement(prompt.answer_style).partition("{answer}")[0]
    thoughts, training = thoughts_of(tokenizer, prompt), readable(problem)
    # By whether a line has just begun.
    says = {begun: text.removeprefix("\n") if begun else text for begun in (False, True)}
    ways = {begun: continuations(tokenizer, prompt, said)[0] for begun, said in says.items()}

    def begun(before: str) -> bool:
        return not before or before.endswith("\n")

    def request(at: _Forced) -> Request:
        closes, closing = thoughts.closing(at.text)
        return Request(
            id=-1,
            prefix=(*at.path.prompt, *at.tokens, *closing, *ways[begun(at.text + closes)]),
            n=settings.samples,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            stop=("\n", *prompt.stop),
            seed=seed_from(context.seed, "forced_answer", problem.id, at.path.text),
            judging=True,
        )

    def item(at: _Forced, completion: Completion) -> Item:
        closed = at.text + thoughts.closing(at.text)[0]
        before = closed + says[begun(closed)].rstrip(" ")
        texts = [thoughts.stated(before + sample.text) for sample in completion.samples]
        return texts, at.wanted, problem, prompt.answer_style

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        found = [_ended(path, training) for path in paths]
        asked = [_forced(path) for path, score in zip(paths, found, strict=True) if score is None]
        answers = yield from completions([request(at) for at in asked])
        items = [item(at, completion) for at, completion in zip(asked, answers, strict=True)]
        forced = iter((yield from call(shares, items)))
        return [next(forced) if score is None else score for score in found]

    room = thoughts.room + max(map(len, ways.values())) + settings.max_tokens
    return Reward(settings, scores, settings.samples * settings.max_tokens, room)


register_reward(ForcedAnswerSettings, _make)

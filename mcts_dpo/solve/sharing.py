"""Solves a set of problems within one budget of tokens, shared out by `allocator.py`.

In: problems, an engine, a total. Out: one solution per problem, and what was bought. Each round decides its purchases,
then runs them side by side. A purchase is a strategy over one problem: greedy, weighted, or mcts, with draws of its
own. All solutions of a problem vote for its answer, each with the belief of the judges.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.coroutine import RequestError
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.answers import values, voting_leaves
from mcts_dpo.search.deadline import Clock, require_seconds
from mcts_dpo.search.mcts import require_unique
from mcts_dpo.search.runner import run
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import NO_ROOM
from mcts_dpo.solve.allocator import KINDS, Evidence, Kind, Purchase, next_purchases
from mcts_dpo.solve.budgets import StrategySettings, budget_to_settings
from mcts_dpo.solve.question import Question, make_question
from mcts_dpo.solve.registry import Strategy
from mcts_dpo.solve.solution import Solution, split_text
from mcts_dpo.solve.solving import solving
from verifiers import grouped

_STRATEGIES: dict[Kind, Strategy] = {"greedy": "greedy", "samples": "weighted", "tree": "mcts"}


@dataclass(frozen=True, slots=True)
class Bought:
    """One purchase, and the tokens that it really cost."""

    purchase: Purchase
    tokens: int


@dataclass(frozen=True, slots=True)
class Shared:
    """The result. solutions: one per problem, in order. bought: all purchases, in order of their rounds."""

    solutions: tuple[Solution, ...]
    bought: tuple[Bought, ...]

    def sentence(self) -> str:
        """What the tokens bought, in words."""
        parts = []
        for kind in KINDS:
            those = [one for one in self.bought if one.purchase.kind == kind]
            problems = len({one.purchase.problem for one in those})
            parts.append(f"{kind} for {problems} problems ({sum(one.tokens for one in those):,} tokens)")
        return f"The allocator bought {', '.join(parts)}."


@dataclass(slots=True)
class _Vote:
    """One answer. belief: in [0, 1]; nan: not known. count: how often it was sampled."""

    answer: str
    text: str
    belief: float
    count: int


@dataclass(slots=True)
class _Case:
    """A problem, and what was bought for it so far. error: why nothing more can be bought."""

    question: Question | None
    votes: list[_Vote] = field(default_factory=list)
    solutions: int = 0
    tokens: int = 0
    judge_tokens: int = 0
    purchases: int = 0
    expansions: int = 0
    text: str = ""
    error: str | None = None

    def beliefs(self) -> list[float]:
        """The weight of each vote; one that no judge knows counts as much as the others on average, or 1."""
        known = [vote.belief for vote in self.votes if not math.isnan(vote.belief)]
        mean = sum(known) / len(known) if known else 1.0
        return [vote.count * (mean if math.isnan(vote.belief) else vote.belief) for vote in self.votes]

    def evidence(self) -> Evidence:
        """What the allocator may know of it."""
        if self.question is None:
            return Evidence(1, closed=True)
        beliefs = self.beliefs()
        classes = grouped([vote.answer for vote in self.votes]).classes
        weights = tuple(sum(beliefs[index] for index in members) for members in classes)
        closed = self.error is not None
        own = self.tokens - self.judge_tokens
        return Evidence(self.question.limit, self.question.cost, weights, self.solutions, own, self.purchases, closed)

    def add(self, solution: Solution) -> None:
        """Take the result of a purchase."""
        self.purchases += 1
        self.tokens += solution.tokens
        self.judge_tokens += solution.judge_tokens
        self.expansions += solution.expansions
        self.error = solution.error
        self.text = self.text or solution.text
        votes = _votes(solution, self.question.prompt.prefill if self.question else "")
        self.votes += votes
        self.solutions += max(1, sum(vote.count for vote in votes), len(solution.finished))

    def solution(self, seconds: float, spent: int) -> Solution:
        """The answer that leads the vote; ties go to the one that was found first."""
        text, answer, undecided = self.text, None, 0
        if self.votes:
            beliefs, vote = self.beliefs(), grouped([one.answer for one in self.votes])
            best = max(vote.classes, key=lambda members: sum(beliefs[index] for index in members))
            leader = self.votes[max(best, key=beliefs.__getitem__)]
            answer, text, undecided = leader.answer, leader.text, vote.undecided
        step_end = self.question.prompt.step_end if self.question else "\n"
        return Solution(
            answer,
            text,
            split_text(text, step_end),
            prompt_tokens=len(self.question.prefix) if self.question else 0,
            tokens=self.tokens,
            expansions=self.expansions,
            solutions=sum(one.count for one in self.votes),
            undecided=undecided,
            error=None if self.votes else self.error,
            judge_tokens=self.judge_tokens,
            seconds=seconds * self.tokens / max(1, spent),
        )


def _votes(solution: Solution, prefill: str) -> list[_Vote]:
    if solution.forest is None:
        return [
            _Vote(one.answer, one.text, math.nan if one.score is None else one.score, 1)
            for one in solution.finished
            if one.answer is not None
        ]
    forest = solution.forest
    leaves = voting_leaves(forest, 0)
    found = []
    for leaf, value in zip(leaves, values(forest, leaves), strict=True):
        answer, count = forest.answers[leaf], max(1, int(forest.samples[leaf]))
        assert answer is not None
        found.append(_Vote(answer, prefill + forest.solution_text(leaf), min(1.0, max(0.0, value)), count))
    return found


def solve_within(
    problems: Sequence[Problem],
    engine: Engine,
    total: int,
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    settings: StrategySettings | None = None,
    progress: Progress = silent,
    clock: Clock = time.monotonic,
) -> Shared:
    """Solve problems within `total` generated tokens (judges included) for all of them together.

    search:   how solutions are sampled and judged. settings: see `StrategySettings`.
    progress: called after each round, in tokens. clock: as in `solve_problems`.

    The same arguments give the same purchases on an engine that repeats itself. Raises InputError for a total below 1
    and as `solve_problems`; EngineDiedError.
    """
    if total < 1:
        raise InputError(f"total budget: {total} is out of range (accepted: an integer ≥ 1)")
    require_unique(problems)
    require_seconds(search.seconds, engine, clock)
    cases = [_case(problem, engine, prompt, search, clock) for problem in problems]
    bought: list[Bought] = []
    left, began = total, clock()
    while purchases := next_purchases([case.evidence() for case in cases], left):
        questions = [_again(cases[one.problem]) for one in purchases]
        coroutines = [
            solving(question, _STRATEGIES[one.kind], budget_to_settings(one.budget, question.settings, settings))
            for one, question in zip(purchases, questions, strict=True)
        ]
        for one, result in zip(purchases, run(coroutines, engine), strict=True):
            found = Solution(error=str(result)) if isinstance(result, RequestError) else result
            cases[one.problem].add(found)
            bought.append(Bought(one, found.tokens))
            left -= max(1, found.tokens)  # so that it ends, whatever a strategy says it cost
        left = max(0, left)
        progress("share out", total - left, total)
    seconds, spent = clock() - began, sum(case.tokens for case in cases)
    return Shared(tuple(case.solution(seconds, spent) for case in cases), tuple(bought))


def _case(problem: Problem, engine: Engine, prompt: PromptSettings, search: SearchSettings, clock: Clock) -> _Case:
    try:
        return _Case(make_question(problem, engine, prompt, search, clock=clock))
    except InputError as error:
        if NO_ROOM not in str(error):
            raise
        return _Case(None, error=str(error))


def _again(case: _Case) -> Question:
    """The question with draws of its own for each purchase but the first."""
    question = case.question
    assert question is not None
    if not case.purchases:
        return question
    seed = seed_from(question.settings.seed, "purchase", case.purchases)
    return replace(question, settings=question.settings.model_copy(update={"seed": seed}))

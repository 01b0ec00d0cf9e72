"""Scores labelled solutions with a judge, and measures the judge (judges.py).

In: trees, or files of solutions whose first wrong step is known, and an entry of `search.rewards`. Out: a
`JudgeEvaluation`. Every step is scored as in a search, asynchronously, over one engine. Scores are scaled to [0, 1] by
the reward's range.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, seed_from, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.engines.base import Usage
from mcts_dpo.engines.coroutine import Coroutine, RequestError
from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.evaluation.judges import JudgedSolution, best_threshold, judge_metrics
from mcts_dpo.evaluation.labelled import LabelledProblem, LabelledSolution
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings
from mcts_dpo.rewards.registry import reward_kind
from mcts_dpo.search.runner import run


@dataclass(frozen=True, slots=True)
class JudgeCost:
    """What the scores cost.

    scores:         how many were asked for. failed: problems whose request the engine refused; they have no scores.
    budget_tokens:  tokens that a budget of a search would count.
    sampled_tokens: tokens that the policy's engine sampled. computed_tokens: prompt tokens that it computed.
    seconds:        elapsed, from the first score to the last; loading the models included.
    """

    scores: int = 0
    failed: int = 0
    budget_tokens: int = 0
    sampled_tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class JudgeEvaluation:
    """How good one judge is on some data.

    judge:     the entry of `search.rewards`, as JSON.
    data:      where the solutions are from. labels: how their steps were labelled.
    threshold: how the threshold of `metrics` was chosen.
    """

    judge: dict[str, Any]
    data: str
    labels: str
    threshold: str
    metrics: dict[str, Any]
    cost: JudgeCost

    @property
    def name(self) -> str:
        """The judge in a few words: its kind, and the name of its model."""
        model = self.judge.get("model") or self.judge.get("path")
        return f"{self.judge['kind']} ({Path(str(model)).name})" if model else str(self.judge["kind"])

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: Path) -> JudgeEvaluation:
        """Read a file of `save`. Raises InputError if it is none."""
        found = read_json(path)
        try:
            return JudgeEvaluation(**{**found, "cost": JudgeCost(**found["cost"])})
        except (TypeError, KeyError):
            raise InputError(f"{path}: not the evaluation of a judge; accepted: what `judge-eval -o` wrote") from None


def evaluate_judge(
    problems: Sequence[LabelledProblem],
    judge: RewardSettings,
    engine: LazyEngine,
    prompt: PromptSettings,
    *,
    data: str,
    labels: str,
    threshold: float = 0.5,
    tune: float = 0.0,
    seed: int = 0,
    progress: Progress = silent,
) -> JudgeEvaluation:
    """Score every step of `problems` with a judge and measure it.

    data, labels: described for readers. threshold: a step scored below it counts as judged wrong. tune: in (0, 1): the
    threshold is the one of the highest F1 on this share of the problems, and the metrics are of the others.

    Raises InputError if the judge needs something that is missing, or if no solution is left.
    """
    cost, before, began = _Cost(), engine.usage.copy(), time.monotonic()
    found = scored(problems, judge, engine, prompt, seed=seed, progress=progress, cost=cost)
    chosen = f"{threshold:g}, given"
    if tune:
        parts: tuple[list[JudgedSolution], list[JudgedSolution]] = ([], [])
        for one in found:
            parts[seed_from("judge threshold", str(one.problem)) >= tune * 2**63].append(one)
        dev, found = parts
        threshold = best_threshold(dev)
        chosen = f"{threshold:.4g}, of the highest F1 on {len({one.problem for one in dev})} other problems"
    if not found:
        raise InputError(f"{data}: no labelled solution is left; accepted: data with known right and wrong solutions")
    measured = judge_metrics(found, threshold)
    return JudgeEvaluation(
        judge.model_dump(mode="json"),
        data,
        labels,
        chosen,
        measured.as_dict(),
        cost.total(engine.usage, before, time.monotonic() - began),
    )


@dataclass(slots=True)
class _Cost:
    scores: int = 0
    failed: int = 0
    tokens: int = 0

    def total(self, now: Usage, before: Usage, seconds: float) -> JudgeCost:
        sampled, computed = now.sampled_tokens - before.sampled_tokens, now.prefill_tokens - before.prefill_tokens
        return JudgeCost(self.scores, self.failed, self.tokens, sampled, computed, round(seconds, 3))


def scored(
    problems: Sequence[LabelledProblem],
    judge: RewardSettings,
    engine: LazyEngine,
    prompt: PromptSettings,
    *,
    seed: int = 0,
    progress: Progress = silent,
    cost: _Cost | None = None,
) -> list[JudgedSolution]:
    """The solutions of `problems` with the judge's score of every step; nan where it has none."""
    spent = _Cost() if cost is None else cost
    judge = everywhere(judge)
    make = reward_kind(judge.kind).make
    rewards = [make(judge, RewardContext(one.problem, engine.tokenizer, prompt, seed)) for one in problems]
    coroutines = [engine.loading(_scores(reward, one)) for reward, one in zip(rewards, problems, strict=True)]
    results = run(coroutines, engine, on_result=lambda done: progress(f"judge {judge.kind}", done, len(problems)))
    found = []
    for one, reward, result in zip(problems, rewards, results, strict=True):
        known: dict[int, float] = {} if isinstance(result, RequestError) else result
        spent.failed += isinstance(result, RequestError)
        spent.scores += len(known)
        spent.tokens += reward.cost * len(known)
        found += [_judged(one, solution, known, judge) for solution in one.solutions]
    return found


def everywhere(judge: RewardSettings) -> RewardSettings:
    """The same reward, scoring every step if it can."""
    try:
        return type(judge).model_validate(judge.model_dump() | {"at": "all", "weight": 1.0})
    except ValueError:  # a kind that only knows whole solutions
        return judge


def _scores(reward: Reward, labelled: LabelledProblem) -> Coroutine[dict[int, float]]:
    """The score of each path that the reward speaks of, by the path's id."""
    unique = {id(path): path for solution in labelled.solutions for path in solution.paths}
    if reward.settings.at == "terminal":
        unique = {key: path for key, path in unique.items() if path.terminal}
    found = (yield from reward.scores(list(unique.values()))) if unique else []
    return dict(zip(unique, found, strict=True))


def _judged(
    one: LabelledProblem, solution: LabelledSolution, scores: dict[int, float], judge: RewardSettings
) -> JudgedSolution:
    low, high = judge.bounds
    raw = np.array([scores.get(id(path), np.nan) for path in solution.paths], np.float64)
    return JudgedSolution(
        np.clip((raw - low) / (high - low), 0.0, 1.0).tolist(),
        solution.right,
        solution.final_right,
        one.group or one.problem.id,
        solution.shared,
    )


def with_truth(
    problems: Sequence[LabelledProblem], truth: RewardSettings, engine: LazyEngine, prompt: PromptSettings
) -> list[LabelledProblem]:
    """The problems with labels of a reward that knows the truth: a path is right if it scores 0.5 or more."""
    judged = iter(scored(problems, truth, engine, prompt))
    found = []
    for one in problems:
        solutions = []
        for solution in one.solutions:
            scores = next(judged).step_scores
            right = tuple(None if np.isnan(score) else bool(score >= 0.5) for score in scores)
            final = right[-1] if solution.paths[-1].terminal else None
            solutions.append(LabelledSolution(solution.paths, right, final, solution.shared))
        found.append(LabelledProblem(one.problem, solutions, one.group))
    return found

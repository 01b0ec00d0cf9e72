"""What are values inside a thought worth? Forced answers and search on the built-in thinking world.

    python -m benchmarks.thinking --json FILE [--work DIR] [--seeds 1] [--problems 100] [--budget 400]

Every policy thinks before it answers (see mcts_dpo/toy/thinking.py). Three parts, each printed as a Markdown table:

1. AUC of the forced answers after each line of a sampled thought, by the line's place in it: how well they tell whether
   the solution will be right. Verified (as in training) and by agreement alone (as when solving).
2. Search inside thoughts against independent samples at equal tokens, forced answers counted.
3. Budgets of a thought: greedy accuracy, and tokens per solution.

Keys: `auc_verified` and `auc_agreement` (lists, one entry per fifth of the thought), `search_gain` (answer accuracy of
the best search minus majority), `coverage_gain`, `tokens_saved` (by the smallest budget whose accuracy is within 0.02).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.judges import command, engine_of, part
from mcts_dpo.common.files import write_json
from mcts_dpo.common.statistics import area_under_roc, mean_t
from mcts_dpo.data import Problem
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.rewards import OutcomeSettings
from mcts_dpo.rewards.forced_answer import ForcedAnswerSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import Solution, Strategy, StrategySettings, solve_problems
from mcts_dpo.toy.thinking import CLOSE, SOLUTION_TOKENS, teach_thinking, thinking_problems, thinking_prompt
from verifiers import verify

PLACES = 5
FORCED = ForcedAnswerSettings(samples=4, max_tokens=4, temperature=0.8)
CHEAP = ForcedAnswerSettings(samples=2, max_tokens=4, temperature=0.8)
LENGTH = 90
"""Tokens of a typical solution."""

ARMS: dict[str, tuple[Strategy, dict[str, Any]]] = {
    "independent samples, majority": ("majority", {}),
    "independent samples, weighted by forced answers": ("weighted", {}),
    "search inside the thought, fixed": ("mcts", {"allocation": "fixed"}),
    "search inside the thought, filter": ("mcts", {"allocation": "filter"}),
}
THINK_BUDGETS = (20, 40, 60, 80, 120, None)


def policy_of(folder: Path, seed: int) -> Path:
    """The policy of a seed, taught if it is not there."""
    policy = folder / "policy"
    if not policy.exists():
        teach_thinking(policy, seed=seed)
    return policy


def positions(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Part 1: for each fifth of a thought, the AUC of the forced answers there."""
    problems = thinking_problems(count, 3 * seed + 1)
    settings = SearchSettings(
        simulations=1, children=4, max_tokens=SOLUTION_TOKENS, max_depth=40, rewards=(OutcomeSettings(), FORCED)
    )
    engine = engine_of(policy_of(folder, seed))
    train = search_problems(problems, engine, prompt=thinking_prompt(), settings=settings)
    solve = search_problems(problems, engine, prompt=thinking_prompt(), settings=settings, mode="solve")
    verified, agreement, right, place = [], [], [], []
    for leaf in np.flatnonzero(train.terminal & (train.outcome != 0)):
        steps = [node for node in train.path(int(leaf))[1:] if CLOSE not in train.texts[node]][:-1]
        for index, node in enumerate(steps):
            verified.append(train.scores["forced_answer"][node])
            agreement.append(solve.scores["forced_answer"][node])
            right.append(bool(train.outcome[leaf] > 0))
            place.append(PLACES * index // len(steps))

    def by_place(scores: Sequence[float]) -> list[float | None]:
        rows = [[i for i, one in enumerate(place) if one == fifth] for fifth in range(PLACES)]
        return [area_under_roc([scores[i] for i in row], [right[i] for i in row]) for row in rows]

    return {"auc_verified": by_place(verified), "auc_agreement": by_place(agreement), "right": float(np.mean(right))}


def covered(problem: Problem, solution: Solution) -> bool:
    """Whether a finished solution is right."""
    forest = solution.forest
    answers = [one.answer for one in solution.finished] if forest is None else list(forest.answers)
    return any(bool(verify(problem.answer or "", answer)) for answer in dict.fromkeys(answers) if answer is not None)


def arm(folder: Path, seed: int, count: int, budget: int, name: str) -> dict[str, float]:
    """Part 2: one strategy."""
    strategy, more = ARMS[name]
    problems = thinking_problems(count, 3 * seed + 2)
    rewards = () if strategy == "majority" else (CHEAP,)
    search = SearchSettings.model_validate(
        {"expand": "step", "max_tokens": SOLUTION_TOKENS, "max_depth": 40, "seed": seed}
        | {"rewards": (OutcomeSettings(), *rewards), **more}
    )
    began = time.process_time()
    found = solve_problems(
        problems,
        engine_of(policy_of(folder, seed)),
        [(strategy, budget)],
        prompt=thinking_prompt(),
        search=search,
        settings=StrategySettings(solution_tokens=LENGTH),
    )[strategy, budget]
    right = [
        one.answer is not None and bool(verify(problem.answer or "", one.answer))
        for problem, one in zip(problems, found, strict=True)
    ]
    return {
        "answer": float(np.mean(right)),
        "covered": float(np.mean([covered(problem, one) for problem, one in zip(problems, found, strict=True)])),
        "tokens": float(np.mean([one.tokens for one in found])),
        "cpu_seconds": time.process_time() - began,
    }


def budgets(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Part 3: greedy accuracy and tokens per solution by `think_budget`."""
    engine, problems = engine_of(policy_of(folder, seed)), thinking_problems(count, 3 * seed + 2)
    found = {}
    for budget in THINK_BUDGETS:
        prompt = thinking_prompt().model_copy(update={"think_budget": budget})
        result = evaluate(problems, engine, prompt=prompt, settings=EvaluationSettings(max_tokens=SOLUTION_TOKENS))
        found[str(budget)] = {"greedy": float(np.mean(result.correct)), "tokens": result.sampled_tokens / count}
    return found


def one_seed(work: Path, seed: int, count: int, budget: int) -> dict[str, Any]:
    """All results of one seed."""
    folder = work / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    cell = f"{count}-{budget}"
    return {
        "positions": part(folder / f"positions-{cell}.json", partial(positions, folder, seed, count)),
        "budgets": part(folder / f"budgets-{cell}.json", partial(budgets, folder, seed, count)),
        "arms": {
            name: part(folder / f"arm-{index}-{cell}.json", partial(arm, folder, seed, count, budget, name))
            for index, name in enumerate(ARMS)
        },
    }


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of the benchmark."""

    def auc(name: str) -> list[float]:
        columns = zip(*(one["positions"][name] for one in found), strict=True)
        return [float(np.mean([value for value in column if value is not None] or [np.nan])) for column in columns]

    def gain(figure: str) -> tuple[str, float]:
        plain, *others = ARMS

        def over(name: str) -> float:
            return float(np.mean([one["arms"][name][figure] - one["arms"][plain][figure] for one in found]))

        best = max((name for name in others if ARMS[name][0] == "mcts"), key=over)
        return best, over(best)

    whole = {name: np.mean([one["budgets"]["None"][name] for one in found]) for name in ("greedy", "tokens")}
    near = [
        np.mean([one["budgets"][str(budget)]["tokens"] for one in found])
        for budget in THINK_BUDGETS
        if np.mean([one["budgets"][str(budget)]["greedy"] for one in found]) >= whole["greedy"] - 0.02
    ]
    return {
        "auc_verified": auc("auc_verified"),
        "auc_agreement": auc("auc_agreement"),
        "best_search": gain("answer")[0],
        "search_gain": gain("answer")[1],
        "coverage_gain": gain("covered")[1],
        "tokens_saved": float(1 - min(near) / whole["tokens"]),
    }


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: the three parts, as means over seeds, with t intervals where there are several."""

    def cell(values: Sequence[float]) -> str:
        if len(values) == 1:
            return f"{values[0]:.2f}"
        one = mean_t(values)
        return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"

    keys = summary(found)
    lines = ["| place in the thought | verified | by agreement |", "|---" * 3 + "|"]
    for fifth, (one, other) in enumerate(zip(keys["auc_verified"], keys["auc_agreement"], strict=True)):
        lines.append(f"| {100 * fifth // PLACES}–{100 * (fifth + 1) // PLACES} % | {one:.2f} | {other:.2f} |")
    lines += ["", "| strategy | answer | covered | tokens | CPU-s |", "|---" * 5 + "|"]
    for name in ARMS:
        arms = [one["arms"][name] for one in found]
        tokens, seconds = (np.mean([one[figure] for one in arms]) for figure in ("tokens", "cpu_seconds"))
        shown = " | ".join(cell([one[figure] for one in arms]) for figure in ("answer", "covered"))
        lines.append(f"| {name} | {shown} | {tokens:,.0f} | {seconds:.0f} |")
    lines += ["", "| think_budget | greedy | tokens per solution |", "|---" * 3 + "|"]
    for budget in THINK_BUDGETS:
        rows = [one["budgets"][str(budget)] for one in found]
        tokens = np.mean([row["tokens"] for row in rows])
        lines.append(f"| {budget} | {cell([row['greedy'] for row in rows])} | {tokens:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    with command(str(__doc__), "thinking-", seeds=1, budget=400) as (arguments, work):
        found = [one_seed(work, seed, arguments.problems, arguments.budget) for seed in range(arguments.seeds)]
    result = summary(found)
    write_json(arguments.json, {**result, "seeds": found})
    print(tables(found))
    print(result)


if __name__ == "__main__":
    main()

"""One budget for a whole problem set: the allocator against the same total spent evenly, on the long-horizon world.

    python -m benchmarks.allocator --json FILE [--work DIR] [--seeds 5] [--problems 100] [--budget 1300]

The policies, judges and problems are those of `benchmarks.judges`; with the same `--work` they are made once.
`--budget` is the tokens per problem of even spending; the allocator may spend as much in total. Prints a Markdown table
and writes the keys `allocator_gain` (accuracy of the allocator minus that of the best even strategy with the same
judge, paired by seed), and right answers per million tokens and per CPU second of both. Intervals are t intervals over
seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.judges import LENGTH, PolicyName, command, engine_of, part, prepare, search_with, solve
from mcts_dpo.common.files import digest, write_json
from mcts_dpo.common.statistics import mean_t
from mcts_dpo.rewards.verification import verdict
from mcts_dpo.search import SearchSettings
from mcts_dpo.solve import Strategy, StrategySettings
from mcts_dpo.solve.allocator import KINDS
from mcts_dpo.solve.sharing import solve_within
from mcts_dpo.toy.horizon import horizon_problems
from mcts_dpo.toy.policy import toy_prompt

JUDGES: dict[str, tuple[PolicyName, str]] = {
    "untaught self-evaluation": ("untaught", "self"),
    "taught self-evaluation": ("taught", "self"),
    "oracle": ("untaught", "oracle"),
}
EVEN: tuple[Strategy, ...] = ("majority", "weighted", "mcts")
JUDGE = "taught self-evaluation"
"""The judge of the keys."""


def share_out(
    folder: Path, seed: int, policy: PolicyName, search: SearchSettings, count: int, budget: int
) -> dict[str, Any]:
    """The allocator over the test problems of a seed."""
    problems = horizon_problems(count, 3 * seed + 3)
    began = time.process_time()
    shared = solve_within(
        problems,
        engine_of(folder / policy),
        count * budget,
        prompt=toy_prompt(),
        search=search,
        settings=StrategySettings(solution_tokens=LENGTH),
    )
    seconds = time.process_time() - began
    right = [bool(verdict(problem, one.answer)) for problem, one in zip(problems, shared.solutions, strict=True)]
    bought = {kind: sum(one.tokens for one in shared.bought if one.purchase.kind == kind) / count for kind in KINDS}
    tokens = sum(one.tokens for one in shared.solutions) / count
    return {"answer": sum(right) / count, "tokens": tokens, "cpu_seconds": seconds, "bought": bought}


def one_seed(work: Path, seed: int, count: int, budget: int) -> dict[str, dict[str, Any]]:
    """All results of one seed, by arm: a judge, and how the total is spent."""
    folder = work / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, seed)
    cells = folder / f"allocator-{digest([count, budget])[:12]}"
    cells.mkdir(exist_ok=True)
    found = {}
    for name, (policy, judge) in JUDGES.items():
        search = search_with(judge, folder, seed, allocation="auto", expand="rollout")
        for strategy in EVEN:
            run = partial(solve, folder, seed, policy, search, strategy, count, budget)
            found[f"{name}, even, {strategy}"] = part(cells / f"{digest([name, strategy])[:12]}.json", run)
        shared = partial(share_out, folder, seed, policy, search, count, budget)
        found[f"{name}, allocator"] = part(cells / f"{digest([name, 'allocator'])[:12]}.json", shared)
    return found


def rate(one: Mapping[str, Any], per: str, count: int) -> float:
    """Right answers per million tokens (`tokens`) or per CPU second (`cpu_seconds`) of one arm."""
    return one["answer"] / one["tokens"] * 1e6 if per == "tokens" else one["answer"] * count / one["cpu_seconds"]


def summary(found: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """The keys of the benchmark."""
    arm = f"{JUDGE}, allocator"
    best = max(EVEN, key=lambda strategy: mean_t([one[f"{JUDGE}, even, {strategy}"]["answer"] for one in found]).value)
    even = f"{JUDGE}, even, {best}"
    gain = mean_t([one[arm]["answer"] - one[even]["answer"] for one in found])
    rates = {
        f"{label}_right_per_{unit}": mean_t([rate(one[name], per, count) for one in found]).value
        for label, name in (("allocator", arm), ("even", even))
        for unit, per in (("million_tokens", "tokens"), ("cpu_second", "cpu_seconds"))
    }
    return {"best_even": best, "allocator_gain": gain.value, "allocator_gain_interval": [gain.low, gain.high], **rates}


def table(found: Sequence[Mapping[str, Any]], count: int) -> str:
    """Markdown: one row per arm."""
    lines = ["| judge, spending | answer | tokens | right per million tokens | right per CPU-s |", "|---" * 5 + "|"]
    for name in found[0]:
        answer = mean_t([one[name]["answer"] for one in found])
        tokens = mean_t([one[name]["tokens"] for one in found]).value
        per = [mean_t([rate(one[name], unit, count) for one in found]).value for unit in ("tokens", "cpu_seconds")]
        shown = f"{answer.value:.2f} [{answer.low:.2f}, {answer.high:.2f}]"
        lines.append(f"| {name} | {shown} | {tokens:,.0f} | {per[0]:,.0f} | {per[1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    with command(str(__doc__), "allocator-") as (arguments, work):
        found = [one_seed(work, seed, arguments.problems, arguments.budget) for seed in range(arguments.seeds)]
    result = summary(found, arguments.problems)
    write_json(arguments.json, {**result, "seeds": found})
    print(table(found, arguments.problems))
    print(result)


if __name__ == "__main__":
    main()

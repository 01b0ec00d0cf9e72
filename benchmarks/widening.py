"""Where should a tree spend its samples? Allocation rules at equal tokens on the built-in long-horizon world.

    python -m benchmarks.widening --json FILE [--work DIR] [--seeds 5] [--problems 100] [--budget 1300]

The policies, judges, problems and measures are those of `benchmarks.judges`; with the same `--work` they are made once.
Prints a Markdown table and writes the keys `true_coverage_ratio_judge` (problems with a truly right solution: the best
rule with a trained judge over independent samples of the same policy), `vote_gain_judge` (accuracy of the answer: the
same rule minus majority), `true_coverage_oracle` and `unspent_share` (of the budget, by that rule). Intervals are t
intervals over seeds; the best rule is chosen by its mean over the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.judges import PolicyName, command, part, prepare, search_with, solve
from mcts_dpo.common.files import digest, write_json
from mcts_dpo.common.statistics import mean_t
from mcts_dpo.solve import Strategy

RULES: dict[str, dict[str, Any]] = {
    "fixed": {"allocation": "fixed"},
    "filter": {"allocation": "filter"},
    "filter, 10 tries": {"allocation": {"kind": "filter", "tries": 10}},
    "first_error": {"allocation": "first_error", "expand": "rollout"},
    "progressive": {"allocation": "progressive", "expand": "rollout"},
    "path": {"allocation": "path"},
    "adaptive": {"allocation": "adaptive", "expand": "rollout"},
    "entropy": {"allocation": "entropy", "expand": "rollout", "merge": "none"},
}
JUDGES: dict[str, tuple[PolicyName, str]] = {
    "untaught self-evaluation": ("untaught", "self"),
    "process head": ("untaught", "process"),
    "taught self-evaluation": ("taught", "self"),
    "simulated, false alarms 0.05, misses 0.2": ("untaught", "worse simulated"),
    "simulated, false alarms 0.02, misses 0.1": ("untaught", "simulated"),
    "oracle": ("untaught", "oracle"),
}
TRAINED = ("process head", "taught self-evaluation")
SAMPLES: tuple[Strategy, ...] = ("best-of-n", "weighted")
FIGURES = ("truly covered", "covered", "answer")


def one_seed(work: Path, seed: int, count: int, budget: int) -> dict[str, dict[str, Any]]:
    """All results of one seed, by arm: a judge and a rule."""
    folder = work / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, seed)
    cells = folder / f"widening-{digest([count, budget])[:12]}"
    cells.mkdir(exist_ok=True)
    found = {}

    def arm(name: str, policy: PolicyName, judge: str, strategy: Strategy, **more: Any) -> None:
        search = search_with(judge, folder, seed, **more)
        run = partial(solve, folder, seed, policy, search, strategy, count, budget)
        found[name] = part(cells / f"{digest(name)[:12]}.json", run)

    for policy in ("untaught", "taught"):
        arm(f"{policy} policy, independent samples, majority", policy, "nobody", "majority")
    for name, (policy, judge) in JUDGES.items():
        for strategy in SAMPLES:
            arm(f"{name}, independent samples, {strategy}", policy, judge, strategy)
        for rule, settings in RULES.items():
            arm(f"{name}, mcts, {rule}", policy, judge, "mcts", **settings)
    return found


def summary(found: Sequence[Mapping[str, Any]], budget: int) -> dict[str, Any]:
    """The keys of the benchmark."""

    def mean(name: str, figure: str) -> float:
        return mean_t([one[name][figure] for one in found]).value

    arms = [f"{judge}, mcts, {rule}" for judge in TRAINED for rule in RULES]
    best = max(arms, key=lambda name: mean(name, "truly covered"))
    policy = JUDGES[best.split(", mcts")[0]][0]
    plain = f"{policy} policy, independent samples, majority"
    covered = mean(plain, "truly covered")
    gain = mean_t([one[best]["answer"] - one[plain]["answer"] for one in found])
    return {
        "best_rule_with_a_trained_judge": best,
        "true_coverage_ratio_judge": mean(best, "truly covered") / covered if covered else None,
        "vote_gain_judge": gain.value,
        "vote_gain_judge_interval": [gain.low, gain.high],
        "true_coverage_oracle": max(mean(f"oracle, mcts, {rule}", "truly covered") for rule in RULES),
        "unspent_share": 1 - mean(best, "tokens") / budget,
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one row per arm."""
    lines = ["| judge, rule | truly right | by number | answer | tokens | CPU-s |", "|---" * 6 + "|"]
    for name in found[0]:
        cells = []
        for figure in FIGURES:
            one = mean_t([seed[name][figure] for seed in found])
            cells.append(f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
        tokens, seconds = (mean_t([seed[name][figure] for seed in found]).value for figure in ("tokens", "cpu_seconds"))
        lines.append(f"| {name} | {' | '.join(cells)} | {tokens:,.0f} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    with command(str(__doc__), "widening-") as (arguments, work):
        found = [one_seed(work, seed, arguments.problems, arguments.budget) for seed in range(arguments.seeds)]
    result = summary(found, arguments.budget)
    write_json(arguments.json, {**result, "seeds": found})
    print(table(found))
    print(result)


if __name__ == "__main__":
    main()

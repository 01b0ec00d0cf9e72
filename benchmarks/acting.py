"""Steps that act: does self-training learn to use a tool? On the built-in tool world.

    python -m benchmarks.acting --json FILE [--work DIR] [--seeds 3] [--problems 300]

The policy guesses products in its head, and delegates one in four to a calculator (mcts_dpo/toy/delegation.py). Two
rounds of search, pairs and training with the calculator as environment, against the same rounds without one: there a
call is never replied to. `--problems` is the number of test problems; every part is kept under DIR.

Prints a Markdown table and writes the keys `tool_gain` (greedy accuracy after minus before, with the environment),
`tool_gain_without` (the same without), `tool_use_before` and `tool_use_after` (share of greedy solutions that call).
Intervals are t intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.judges import command, part
from mcts_dpo.common.files import write_json
from mcts_dpo.common.statistics import mean_t
from mcts_dpo.data import ProblemSettings, save_problems
from mcts_dpo.engines import EngineSettings
from mcts_dpo.environments import EnvironmentSettings
from mcts_dpo.environments.none import NoneSettings
from mcts_dpo.evaluation import Evaluation, EvaluationSettings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import PreferenceSettings
from mcts_dpo.search import SearchSettings
from mcts_dpo.toy.delegation import ENVIRONMENT, SOLUTION_TOKENS, teach_tools, tool_problems, tool_prompt
from mcts_dpo.training import DataSettings, OptimiserSettings, TrainingSettings, objective_settings

ROUNDS, PROBLEMS_PER_ROUND = 2, 150
ARMS: dict[str, EnvironmentSettings] = {"calculator": ENVIRONMENT, "none": NoneSettings()}


def config_of(folder: Path, seed: int, environment: EnvironmentSettings) -> RunConfig:
    """The run of one arm. folder: holds the policy and the problems."""
    return RunConfig(
        model=str(folder / "start"),
        train=ProblemSettings(source=str(folder / "train.jsonl")),
        test=ProblemSettings(source=str(folder / "test.jsonl")),
        prompt=tool_prompt(),
        engine=EngineSettings(slots=512, dtype="float32", threads=1),
        search=SearchSettings(
            expand="rollout",
            simulations=4,
            children=4,
            temperature=1.0,
            max_tokens=SOLUTION_TOKENS,
            environment=environment,
        ),
        preferences=PreferenceSettings(select="best_path", min_gap=0.5),
        training=TrainingSettings(
            objective=objective_settings("step_dpo"),
            optimiser=OptimiserSettings(lr=3e-4, schedule="linear"),
            data=DataSettings(epochs=2, batch_size=16),
            dtype="float32",
            threads=1,
        ),
        evaluation=EvaluationSettings(max_tokens=SOLUTION_TOKENS, chunk=512),
        rounds=ROUNDS,
        problems_per_round=PROBLEMS_PER_ROUND,
        shard_size=75,
        seed=seed,
    )


def prepare(folder: Path, seed: int, count: int) -> None:
    """Make the policy and the problems of a seed, unless they are there."""
    if not (folder / "start").exists():
        teach_tools(folder / "start", seed=seed)
    if not (folder / "test.jsonl").exists():
        test = tool_problems(count, 2 * seed + 1)
        train = tool_problems(ROUNDS * PROBLEMS_PER_ROUND, 2 * seed, exclude={problem.question for problem in test})
        save_problems(folder / "train.jsonl", train)
        save_problems(folder / "test.jsonl", test)


def arm(folder: Path, seed: int, name: str) -> dict[str, Any]:
    """Run one arm, and say how well the policy solves and how often it calls, before and after."""
    place = folder / f"run-{name}"
    config = config_of(folder, seed, ARMS[name])
    result = run(config, place)
    found: dict[str, Any] = {"pairs": [metrics["pairs"] for metrics in result.rounds]}
    for when, where in (("before", "baseline"), ("after", f"round-{ROUNDS - 1:03}")):
        outcomes = Evaluation.load(place / where / "evaluation.parquet").outcomes
        found[f"greedy_{when}"] = sum(one.correct for one in outcomes) / len(outcomes)
        found[f"calls_{when}"] = sum(ENVIRONMENT.opening in one.text for one in outcomes) / len(outcomes)
    return found


def one_seed(work: Path, seed: int, count: int) -> dict[str, dict[str, Any]]:
    """All arms of one seed."""
    folder = work / f"acting-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, seed, count)
    return {name: part(folder / f"{name}.json", partial(arm, folder, seed, name)) for name in ARMS}


def summary(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The keys of the benchmark."""

    def gain(name: str) -> list[float]:
        return [one[name]["greedy_after"] - one[name]["greedy_before"] for one in found]

    learned, without = mean_t(gain("calculator")), mean_t(gain("none"))
    return {
        "tool_gain": learned.value,
        "tool_gain_interval": [learned.low, learned.high],
        "tool_gain_without": without.value,
        "tool_gain_without_interval": [without.low, without.high],
        "tool_use_before": mean_t([one["calculator"]["calls_before"] for one in found]).value,
        "tool_use_after": mean_t([one["calculator"]["calls_after"] for one in found]).value,
    }


def table(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Markdown: one row per arm."""
    names = ("greedy_before", "greedy_after", "calls_before", "calls_after")
    lines = [f"| environment | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * 5 + "|"]
    for name in ARMS:
        cells = []
        for figure in names:
            one = mean_t([seed[name][figure] for seed in found])
            cells.append(f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    with command(str(__doc__), "acting-", seeds=3) as (arguments, work):
        found = [one_seed(work, seed, arguments.problems) for seed in range(arguments.seeds)]
    result = summary(found)
    write_json(arguments.json, {**result, "seeds": found})
    print(table(found))
    print(result)


if __name__ == "__main__":
    main()

"""One switch at a time, at matched budgets: grids of ordinary runs over fresh seeds, with controls and intervals.

    python -m benchmarks.ablations --suite SUITE [--seeds N] [--out DIR] [--jobs 2] [name=value …]

Suites: those of `benchmarks/suites.py`, and `budget` (training against inference compute: the start and the trained
policies, answering by several strategies at several budgets of tokens). Every arm of every seed is a run directory
under DIR/SUITE, so that a second call continues where the first was stopped. On the built-in world unless settings say
otherwise (`model=… train.source=… test.source=…`: any model and data; a seed is then the run's own seed alone).

The protocol. The arms of a seed share the warm start, the problems, the test set and, where they search alike, the
first round's trees; every round of every arm is the same number of updates of as many pairs or solutions. Each arm's
learning rate is chosen among the same ones, by one round on one more seed that is not counted. Greedy accuracy, mean
accuracy of 8 samples and pass@8 are measured after the last round. Differences are paired per problem, then averaged
over seeds with a t interval, whose level is corrected for the number of differences (Bonferroni). A tie is called a
tie; arms whose searches spent more than a tenth more or less than the control's get no verdict.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from benchmarks.losses import greedy, sampled
from benchmarks.selftraining import share_start
from benchmarks.suites import ALL_IN_ONE, SUITES, Arm, Suite
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, read_json, read_json_lines, whole, write_json
from mcts_dpo.common.settings import load_settings
from mcts_dpo.common.statistics import mean_t, pass_at_k
from mcts_dpo.data import load_problems
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import Evaluation, evaluate
from mcts_dpo.evaluation.strategies import StrategyComparison, evaluate_strategies
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.recipes import load_recipe, merged
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.solve import Strategy
from mcts_dpo.toy.demo import prepare
from mcts_dpo.toy.policy import toy_prompt

METHOD = {
    "search": {"expand": "rollout", "simulations": 8, "children": 4, "temperature": 0.8},
    "preferences": {"select": "best_path", "min_gap": 0.5},
}
"""What an arm without a recipe changes from."""
ROUNDS, PROBLEMS, TEST_PROBLEMS, UPDATES, SAMPLES = 2, 300, 1000, 20, 8
RATES = (5e-5, 2e-4, 5e-4)
UNEQUAL = 0.1
"""A share of the control's tokens per problem; arms further from it than that get no verdict."""
TUNING_SEED = 1000
FINAL = "final.parquet"
TOGETHER = 6
"""Runs of one process: starting one costs as much as half a run."""
VALUE_TRAINING = {
    "optimiser": {"lr": 1e-2},
    "data": {"epochs": 1000, "max_updates": 60},
    "checkpoint": {"minutes": None},
    "threads": 1,
    "trackers": (),
}
BUDGETS = (64, 256, 1024)
"""Inference budgets of the suite `budget`, tokens per problem; problems per cell: BUDGET_PROBLEMS."""
BUDGET_PROBLEMS = 300
STRATEGIES: tuple[Strategy, ...] = ("majority", "best-of-n", "mcts")
BUDGET_ARMS: dict[str, Arm] = {
    "rft": SUITES["losses"].arms["rft"],
    "step_rft": SUITES["losses"].arms["step_rft"],
    "step_dpo": SUITES["rewards"].arms["step_dpo"],
}

Floats = NDArray[np.float64]
Rates = Mapping[str, Sequence[float]]
MEASURES: dict[str, Callable[[Evaluation], Floats]] = {
    "greedy": greedy,
    "mean sample": sampled,
    "pass@8": lambda found: np.array([pass_at_k(SAMPLES, sum(one.sample_correct), SAMPLES) for one in found.outcomes]),
}
"""[problems] of each measure, from one evaluation."""


def world(folder: Path, seed: int, own: Sequence[str] = ()) -> dict[str, Any]:
    """What is the same for all arms: how large everything is, not what is compared; on the built-in world unless the
    user's own settings name a model."""
    updates = {"data": {"batch_size": 32, "epochs": 1000, "max_updates": UPDATES}}
    size = {"rounds": ROUNDS, "problems_per_round": PROBLEMS, "shard_size": 100, "seed": seed, "training": updates}
    if is_foreign(own):
        return size
    start, problems = folder / f"seed-{seed}" / "start", folder / f"seed-{seed}" / "problems"
    quick = {
        "optimiser": {"schedule": "linear"},
        "checkpoint": {"minutes": None},
        "dtype": "float32",
        "threads": 1,
        "trackers": (),
    }
    toy = {
        "model": str(start),
        "train": {"source": str(problems / "train.jsonl")},
        "test": {"source": str(problems / "test.jsonl")},
        "prompt": toy_prompt().model_dump(mode="json"),
        "engine": {"slots": 512, "dtype": "float32", "threads": 1},
        "search": {"max_tokens": 96},
        "training": quick,
        "evaluation": {"max_tokens": 96, "chunk": 512},
    }
    return merged(size, toy)


def is_foreign(own: Sequence[str]) -> bool:
    """Whether the user's settings name a model of their own."""
    return any(setting.partition("=")[0].strip() == "model" for setting in own)


def arm_config(
    base: Mapping[str, Any], arm: Arm, rate: float, own: Sequence[str], *, tuning: bool = False
) -> RunConfig:
    """Method (the recipe's), world, arm, learning rate, the user's own settings: the later over the earlier."""
    changes = dict(arm.changes)
    data = merged(load_recipe(arm.recipe).settings if arm.recipe else METHOD, base)
    if changes.pop("rounds", None) == ALL_IN_ONE and not tuning:
        whole_run = {"rounds": 1, "problems_per_round": data["rounds"] * data["problems_per_round"]}
        updates = data["rounds"] * data["training"]["data"]["max_updates"]
        data = merged(data, {**whole_run, "training": {"data": {"max_updates": updates}}})
    if "judges.value.weight" in changes:
        data = merged(data, {"judges": [{"kind": "value", "training": VALUE_TRAINING}]})
    written = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    return load_settings(
        RunConfig, data, [*written, f"training.optimiser.lr={rate}", *own, *(["rounds=1"] if tuning else [])]
    )


def first_search(config: RunConfig) -> str:
    """The same for runs of one seed whose first round's trees are the same."""
    return digest(config.search.model_dump(mode="json"), config.problems_per_round, config.shard_size, config.model)


def groups(folder: Path, suite: str, seed: int, rates: Rates, own: Sequence[str]) -> list[list[tuple[Path, RunConfig]]]:
    """The runs of one seed, those together that search alike in their first round."""
    base = world(folder, seed, own)
    together: dict[str, list[tuple[Path, RunConfig]]] = {}
    for name, arm in arms_of(suite).items():
        for rate in rates[name]:
            config = arm_config(base, arm, rate, own, tuning=seed == TUNING_SEED)
            place = place_of(folder, suite, seed, name, rate)
            together.setdefault(first_search(config), []).append((place, config))
    return list(together.values())


def run_part(group: Sequence[tuple[Path, RunConfig]], part: Sequence[tuple[Path, RunConfig]], *, tuning: bool) -> None:
    """Run a part of what searches alike, one after the other: the first one's first trees are everyone's."""
    first, *_ = group[0]
    for directory, config in part:
        if directory != first:
            share_start(first, directory, config)
        result = run(config, directory)
        if not tuning:
            measure(config, directory, result.policy)


def is_done(directory: Path, config: RunConfig, *, tuning: bool) -> bool:
    """Whether this very run has nothing left to do."""
    last = directory / f"round-{config.rounds - 1:03d}" / "metrics.json" if tuning else directory / FINAL
    return last.exists() and load_settings(RunConfig, directory / "config.yaml") == config


def measure(config: RunConfig, directory: Path, policy: str) -> None:
    """The last policy's evaluation with samples, once."""
    target = directory / FINAL
    if target.exists():
        return
    settings = config.evaluation.model_copy(update={"samples": SAMPLES, "seed": config.seed + 1})
    engine = load_engine(policy, settings=config.engine)
    evaluate(load_problems(config.test), engine, prompt=config.prompt, settings=settings).save(target)


def make_world(folder: Path, seed: int) -> None:
    """The warm start and the problems of one seed, unless they are there."""
    prepare(folder / f"seed-{seed}", seed=seed, train_problems=ROUNDS * PROBLEMS, test_problems=TEST_PROBLEMS)


def arms_of(suite: str) -> Mapping[str, Arm]:
    return BUDGET_ARMS if suite == "budget" else SUITES[suite].arms


def place_of(folder: Path, suite: str, seed: int, name: str, rate: float) -> Path:
    """An arm's run directory."""
    safe = name.replace(", ", "_").replace(" ", "-")
    return folder / suite / f"seed-{seed}" / (f"{safe}@{rate:g}" if seed == TUNING_SEED else safe)


def tuned(folder: Path, suite: str, tried: Sequence[float] = RATES) -> dict[str, float]:
    """Each arm's learning rate: of those tried the one of highest greedy accuracy, one round on the tuning seed."""
    chosen = {}
    for name in arms_of(suite):
        scores = {}
        for rate in tried:
            last = place_of(folder, suite, TUNING_SEED, name, rate) / "round-000" / "metrics.json"
            scores[rate] = read_json(last)["test"]["greedy"]["value"]
        chosen[name] = max(tried, key=lambda rate: scores[rate])
    return chosen


# --- what came out ------------------------------------------------------------------------------------


def difference(per_seed: Sequence[Floats], comparisons: int) -> dict[str, Any]:
    """Paired differences ([problems] per seed): their mean, and the t interval over seeds at 1 − 0.05 / comparisons."""
    means = [float(one.mean()) for one in per_seed]
    if len(means) < 2:
        return {"mean": means[0], "low": None, "high": None, "verdict": "one seed: no interval"}
    found = mean_t(means, 1 - 0.05 / comparisons)
    verdict = "a tie" if found.low <= 0 <= found.high else "better" if found.value > 0 else "worse"
    return {"mean": found.value, "low": found.low, "high": found.high, "verdict": verdict}


def collect(
    folder: Path, suite: Suite, name: str, seeds: Sequence[int], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row per arm, the control first."""
    found = {
        (arm, seed): Evaluation.load(place_of(folder, name, seed, arm, rates[arm]) / FINAL)
        for arm in suite.arms
        for seed in seeds
    }
    rows, allowance = [], 0.0
    for arm in (suite.control, *(arm for arm in suite.arms if arm != suite.control)):
        places = [place_of(folder, name, seed, arm, rates[arm]) for seed in seeds]
        rounds = [read_json_lines(place / "metrics.jsonl")[1:] for place in places]
        row: dict[str, Any] = {"arm": arm, "against": suite.compared_with(arm), "lr": rates[arm], "seeds": len(seeds)}
        for kind, of in MEASURES.items():
            row[kind] = float(np.mean([of(found[arm, seed]).mean() for seed in seeds]))
            other = suite.compared_with(arm)
            gaps = [of(found[arm, seed]) - of(found[other or arm, seed]) for seed in seeds]
            row[f"{kind} difference"] = difference(gaps, len(suite.arms) - 1) if other else None
        searched = [sum(one["search"]["sampled_tokens"] for one in each) for each in rounds]
        problems = [sum(one["search"]["problems"] for one in each) for each in rounds]
        trained = [[one["training"] for one in each if "training" in one] for each in rounds]
        row["search tokens per problem"] = spent = float(sum(searched) / sum(problems))
        allowance = allowance or spent
        row["updates"] = float(np.mean([sum(one["updates"] for one in each) for each in trained]))
        row["training tokens"] = float(np.mean([sum(one["tokens"] for one in each) for each in trained]))
        if abs(spent / allowance - 1) > UNEQUAL:
            for kind in MEASURES:
                row[f"{kind} difference"]["verdict"] = "not at equal tokens"
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]], suite: Suite) -> str:
    """The rows as Markdown, with what they may be read for."""
    comparisons = max(1, len(rows) - 1)
    lines = [
        f"{suite.question} In brackets the difference from the arm in the second column (mean over {rows[0]['seeds']} "
        f"seeds, half of the interval at 1 − 0.05 / {comparisons}).\n",
        f"| arm | against | lr | {' | '.join(MEASURES)} | search, tokens a problem | training tokens |",
        "|---" * (5 + len(MEASURES)) + "|",
    ]
    for row in rows:
        cells = [row["arm"], row["against"] or "", f"{row['lr']:g}"]
        cells += [f"{row[kind]:.3f}{_gap(row[f'{kind} difference'])}" for kind in MEASURES]
        cells += [f"{row['search tokens per problem']:,.0f}", f"{row['training tokens']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    updates = {round(row["updates"]) for row in rows}
    lines.append(f"\nUpdates of each run: {', '.join(map(str, sorted(updates)))}.")
    return "\n".join(lines)


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return ""
    half = "" if gap["low"] is None else f" ± {(gap['high'] - gap['low']) / 2:.3f}"
    verdict = gap["verdict"] if gap["verdict"] in ("a tie", "not at equal tokens") else f"**{gap['verdict']}**"
    return f" ({gap['mean']:+.3f}{half}, {verdict})"


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], suite: Suite) -> str:
    """Table, CSV and figure of a suite, in its folder. Returns the table."""
    text = table(rows, suite)
    with whole(folder / name / "table.md") as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")
    flat = [_flat(row) for row in rows]
    with whole(folder / name / "table.csv") as scratch, scratch.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(flat[-1]))
        writer.writeheader()
        writer.writerows(flat)
    draw(folder / name / "figure.png", rows)
    write_json(folder / name / "table.json", list(rows))
    return text


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("difference"):
            for part in ("mean", "low", "high", "verdict"):
                flat[f"{key} {part}"] = (value or {}).get(part)
        else:
            flat[key] = value
    return flat


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Differences with their intervals, greedy and mean sample side by side."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row["against"]]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 1 + 0.35 * len(shown)), sharey=True, layout="constrained")
    for axis, kind in zip(axes, ("greedy", "mean sample"), strict=True):
        for height, row in enumerate(shown):
            gap = row[f"{kind} difference"]
            if gap["low"] is not None:
                axis.plot([gap["low"], gap["high"]], [height, height], color="tab:blue")
            axis.plot(gap["mean"], height, "o", color="tab:blue")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(shown)), [f"{row['arm']} − {row['against']}" for row in shown])
        axis.invert_yaxis() if axis is axes[0] else None
        axis.set_xlabel(f"{kind}: difference")
    with whole(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png")
    pyplot.close(figure)


# --- training against inference compute ---------------------------------------------------------------


def answer_with_budgets(folder: Path, seed: int) -> None:
    """The start and every arm's last policy, by several strategies at several budgets; kept cell by cell."""
    place = folder / "budget" / f"seed-{seed}"
    config = load_settings(RunConfig, place / "rft" / "config.yaml")
    start = {"start": config.model}
    trained = {arm: str(place / arm / f"round-{config.rounds - 1:03d}" / "policy") for arm in BUDGET_ARMS}
    for arm, policy in (start | trained).items():
        evaluate_strategies(
            load_problems(config.test)[:BUDGET_PROBLEMS],
            load_engine(policy, settings=config.engine),
            STRATEGIES,
            BUDGETS,
            prompt=config.prompt,
            search=config.search.model_copy(update={"seed": seed}),
            folder=place / "strategies" / arm,
        ).save(place / "strategies" / arm)


def budget_table(folder: Path, seeds: Sequence[int]) -> str:
    """Accuracy of each policy at each budget, and the differences from the start at the same budget."""
    places = {seed: folder / "budget" / f"seed-{seed}" / "strategies" for seed in seeds}
    correct: dict[tuple[str, str, int], list[Floats]] = {}
    for arm in ("start", *BUDGET_ARMS):
        for seed in seeds:
            for result in StrategyComparison.load(places[seed] / arm / "strategies.parquet").results:
                cell = correct.setdefault((arm, result.strategy, result.budget), [])
                cell.append(np.array(result.correct, np.float64))
    comparisons = len(BUDGET_ARMS) * len(STRATEGIES) * len(BUDGETS)
    lines = [
        "Is a token better spent on training or on answering? Accuracy by strategy and budget (tokens per problem); in "
        f"brackets the difference from the start at the same cell (mean over {len(seeds)} seeds, half of the interval "
        f"at 1 − 0.05 / {comparisons}).\n",
        "| policy | " + " | ".join(f"{strategy}, {budget}" for strategy in STRATEGIES for budget in BUDGETS) + " |",
        "|---" * (1 + len(STRATEGIES) * len(BUDGETS)) + "|",
    ]
    for arm in ("start", *BUDGET_ARMS):
        cells = [arm]
        for strategy in STRATEGIES:
            for budget in BUDGETS:
                here, start = correct[arm, strategy, budget], correct["start", strategy, budget]
                mean = f"{np.mean([one.mean() for one in here]):.3f}"
                gaps = [one - other for one, other in zip(here, start, strict=True)]
                cells.append(mean if arm == "start" else mean + _gap(difference(gaps, comparisons)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# --- the command --------------------------------------------------------------------------------------


def work(command: Sequence[str], what: str) -> None:
    """One process of this module."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.ablations", "--step", what, *command], check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.ablations: {what} failed; the same command continues from there")


def do(step: str, folder: Path, suite: str, own: Sequence[str], tried: Sequence[float] = RATES) -> None:
    """The work of one process: "world SEED", "runs SEED GROUP FROM TO" or "budget SEED"."""
    kind, seed, *rest = step.split()
    if kind == "world":
        make_world(folder, int(seed))
    elif kind == "budget":
        answer_with_budgets(folder, int(seed))
    else:
        tuning = int(seed) == TUNING_SEED
        rates = dict.fromkeys(arms_of(suite), tried) if tuning else one_each(tuned(folder, suite, tried))
        number, begin, end = map(int, rest)
        group = groups(folder, suite, int(seed), rates, own)[number]
        run_part(group, group[begin:end], tuning=tuning)


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def one_each(rates: Mapping[str, float]) -> Rates:
    return {name: (rate,) for name, rate in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, choices=[*SUITES, "budget"])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, each with one thread")
    parser.add_argument("--rates", type=numbers, default=RATES, help="learning rates that every arm may have: a,b,…")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("own", nargs="*", metavar="name=value", help="settings over those of every arm")
    arguments = parser.parse_args()
    folder, suite, own, tried = arguments.out, arguments.suite, arguments.own, arguments.rates
    try:
        if arguments.step:
            do(arguments.step, folder, suite, own, tried)
            return
        example = dict.fromkeys(arms_of(suite), tried)
        configs = [config for group in groups(folder, suite, TUNING_SEED, example, own) for _, config in group]
        if is_foreign(own):  # before anything is written
            load_tokenizer(configs[0].model)
            for source in (configs[0].train, configs[0].test):
                load_problems(source)
    except InputError as error:
        parser.exit(2, f"benchmarks.ablations: {error}\n")
    seeds = list(range(arguments.seeds))
    command = ["--suite", suite, "--out", str(folder), "--rates", ",".join(map(str, tried)), *own]
    with ThreadPoolExecutor(arguments.jobs) as pool:

        def all_of(what: str, steps: Sequence[str]) -> None:
            for done, _ in enumerate(pool.map(lambda step: work(command, step), steps), 1):
                print(f"{suite}: {what}, {done} of {len(steps)}", file=sys.stderr, flush=True)

        def run_all(what: str, chosen: Sequence[int], rates: Rates) -> None:
            parts = [
                (begin, f"runs {seed} {number} {begin} {end}")
                for seed in chosen
                for number, group in enumerate(groups(folder, suite, seed, rates, own))
                for begin, end in [(0, 1), *((one, one + TOGETHER) for one in range(1, len(group), TOGETHER))]
                if not all(is_done(*one, tuning=seed == TUNING_SEED) for one in group[begin:end])
            ]
            all_of(f"{what}, first of their trees", [step for begin, step in parts if begin == 0])
            all_of(f"{what}, the others", [step for begin, step in parts if begin])

        if not is_foreign(own):
            worlds = [seed for seed in (TUNING_SEED, *seeds) if not (folder / f"seed-{seed}" / "problems").exists()]
            all_of("warm starts", [f"world {seed}" for seed in worlds])
        run_all("learning rates", [TUNING_SEED], example)
        rates = tuned(folder, suite, tried)
        run_all("runs", seeds, one_each(rates))
        if suite == "budget":
            all_of("answers at several budgets", [f"budget {seed}" for seed in seeds])
    if suite == "budget":
        text = budget_table(folder, seeds)
        with whole(folder / suite / "table.md") as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")
    else:
        text = write(folder, suite, collect(folder, SUITES[suite], suite, seeds, rates), SUITES[suite])
    print(f"{text}\n\nLearning rates chosen among {', '.join(f'{rate:g}' for rate in tried)} on another seed.")


if __name__ == "__main__":
    main()

"""Does self-training on the built-in world pay, over fresh seeds, and does a preference loss pay over its controls?

    python -m benchmarks.selftraining --seeds 5 --json FILE [--out DIR] [--jobs 2]

Every seed has its own warm start, problems and test set. The arms of a seed (step-DPO, RFT, step-RFT) share all of
them, and the first round's trees; they differ in the objective alone. Each arm is an ordinary run directory, so an
interrupted benchmark continues. Prints one table of gains, one of paired differences between arms (mean over
problems within a seed, then mean and standard error over seeds), and writes the keys `gain_mean`, `gain_min`,
`gain_rft_mean`, `seconds_per_run`, with the rest beside them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from mcts_dpo.common.files import whole, write_json
from mcts_dpo.common.settings import dump_settings
from mcts_dpo.common.statistics import mean_t
from mcts_dpo.evaluation import Evaluation, compare
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.report import load_run
from mcts_dpo.toy.demo import ROUNDS, TEST_PROBLEMS, Objective, demo_config, prepare

ARMS: tuple[Objective, ...] = get_args(Objective)


def run_seed(folder: Path, seed: int) -> None:
    """All arms of one seed, one after the other, in `folder`."""
    start, problems = prepare(folder, seed=seed)
    first = folder / ARMS[0]
    for arm in ARMS:
        directory, config = folder / arm, demo_config(start, problems, seed=seed, objective=arm)
        if arm != ARMS[0]:
            share_start(first, directory, config)
        run(config, directory)


def share_start(first: Path, directory: Path, config: RunConfig) -> None:
    """Begin the run of `config` in `directory`, unless it has begun, with the start's evaluation and the first trees of
    the run `first`: with the same policy, problems, search and seed they are the same by definition."""
    if directory.exists():
        return
    with whole(directory) as scratch:
        shutil.copytree(first / "baseline", scratch / "baseline")
        shutil.copytree(first / "round-000" / "trees", scratch / "round-000" / "trees")
        (scratch / "config.yaml").write_text(dump_settings(config), encoding="utf-8")


def collect(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """The finished arms of all seeds, summed up."""
    gains: dict[str, list[float]] = {arm: [] for arm in ARMS}
    first_round: dict[str, list[float]] = {arm: [] for arm in ARMS}
    starts, seconds, aucs = [], [], []
    against: dict[str, list[float]] = {arm: [] for arm in ARMS if arm != "rft"}
    for seed in seeds:
        last = {}
        for arm in ARMS:
            record = load_run(folder / f"seed-{seed}" / arm)
            start, *rounds = record.metrics
            before = start["test"]["greedy"]["value"]
            gains[arm].append(rounds[-1]["test"]["greedy"]["value"] - before)
            first_round[arm].append(rounds[0]["test"]["greedy"]["value"] - before)
            last[arm] = Evaluation.load(record.directory / f"round-{ROUNDS - 1:03d}" / "evaluation.parquet")
            if arm == ARMS[0]:
                starts.append(before)
                aucs.append(start["test"]["self_evaluation_auc"])
                seconds.append(sum(line["seconds"] for line in record.timings))
        for arm in against:
            against[arm].append(compare(last["rft"], last[arm]).difference.value)
    return {
        "seeds": seeds,
        "test_problems": TEST_PROBLEMS,
        "start": starts,
        "self_evaluation_auc": aucs,
        "gains": gains,
        "gains_after_first_round": first_round,
        "difference_to_rft": {arm: estimate(values) for arm, values in against.items()},
        "gain_mean": float(np.mean(gains["step_dpo"])),
        "gain_min": float(np.min(gains["step_dpo"])),
        "gain_rft_mean": float(np.mean(gains["rft"])),
        "seconds_per_run": float(np.mean(seconds)),
    }


def estimate(values: list[float]) -> dict[str, float]:
    """Mean, standard error and t interval over seeds."""
    if len(values) < 2:
        return {"mean": float(np.mean(values))}
    interval = mean_t(values)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": interval.value, "standard_error": error, "low": interval.low, "high": interval.high}


def show(results: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Gain in greedy accuracy after {ROUNDS} rounds, {results['test_problems']} test problems")
    table.add_column("seed", justify="right")
    table.add_column("start", justify="right")
    for arm in ARMS:
        table.add_column(arm, justify="right")
    for row, seed in enumerate(results["seeds"]):
        gains = [f"{results['gains'][arm][row]:+.3f}" for arm in ARMS]
        table.add_row(str(seed), f"{results['start'][row]:.3f}", *gains)
    means = [f"{np.mean(results['gains'][arm]):+.3f}" for arm in ARMS]
    table.add_row("mean", f"{np.mean(results['start']):.3f}", *means)
    console.print(table)
    for arm, figures in results["difference_to_rft"].items():
        if "standard_error" not in figures:
            console.print(f"{arm} − rft: {figures['mean']:+.4f} (one seed: no error)")
            continue
        verdict = "a tie" if figures["low"] <= 0 <= figures["high"] else "a difference"
        console.print(
            f"{arm} − rft: {figures['mean']:+.4f}, standard error over seeds {figures['standard_error']:.4f}, "
            f"95 % [{figures['low']:+.4f}, {figures['high']:+.4f}]: {verdict}"
        )
    console.print(f"{results['seconds_per_run']:.0f} s per run (wall clock of its stages, warm start apart)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 … N-1")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--out", type=Path, default=Path("runs/selftraining"), help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, each a process with one thread")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        run_seed(arguments.out / f"seed-{arguments.only}", arguments.only)
        return
    seeds = list(range(arguments.first_seed, arguments.first_seed + arguments.seeds))

    def one(seed: int) -> None:
        command = [sys.executable, "-m", "benchmarks.selftraining", "--only", str(seed), "--out", str(arguments.out)]
        subprocess.run(command, check=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, seeds))
    results = collect(arguments.out, seeds)
    show(results, Console())
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()

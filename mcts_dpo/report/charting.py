"""A run's figures as JSON for the report's charts, which `assets/charts.js` draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.files import read_json_lines, read_table
from mcts_dpo.evaluation import Evaluation, StrategyComparison
from mcts_dpo.report.judges import judge_figures
from mcts_dpo.report.text import RunRecord
from verifiers import verify

BINS = 40
POINTS = 600
"""The most points of a curve. Longer curves are thinned evenly and keep their last point."""
SHOWN = (
    "loss",
    "margin",
    "accuracy",
    "chosen_logprob",
    "rejected_logprob",
    "chosen_displacement",
    "rejected_displacement",
    "kl",
    "gradient_norm",
    "lr",
)


def run_figures(record: RunRecord) -> dict[str, Any]:
    """Everything the charts show, as plain JSON."""
    return {
        "rounds": [_policy(record, line) for line in record.metrics],
        "strategies": strategies(record),
        "judges": judge_figures(record.directory),
        "training": [curve for line in record.rounds if (curve := _curve(record, line["round"]))],
        "searches": [_search(record, line["round"]) for line in record.rounds],
        "verdicts": verdict_origins(record),
        "stages": [
            {"place": line["place"], "stage": line["stage"], "seconds": round(line["seconds"], 1)}
            for line in record.timings
        ],
    }


def _policy(record: RunRecord, line: dict[str, Any]) -> dict[str, Any]:
    """One policy's row: accuracy with its interval, cost, and whether it was accepted."""
    search = line.get("search", {})
    return {
        "name": "start" if line["round"] < 0 else f"round {line['round'] + 1}",
        "greedy": line["test"]["greedy"],
        "sampled": line["test"].get("sampled"),
        "first": search.get("first_sample_accuracy"),
        "against": line.get("against_baseline"),
        "accepted": line.get("accepted", True),
        "pairs": line.get("pairs"),
        "tokens": search.get("sampled_tokens"),
        "trained": line.get("training", {}).get("tokens"),
        "evaluated": line["test"].get("sampled_tokens"),
        "seconds": round(record.seconds(line["round"]), 1),
        "alarms": line.get("training", {}).get("alarms", []),
    }


def _curve(record: RunRecord, number: int) -> dict[str, Any] | None:
    """The training log of a round, column by column."""
    log = round_directory(record, number) / "training" / "log.jsonl"
    if not log.exists():
        return None
    lines = read_json_lines(log)
    if not lines:
        return None
    kept = sorted({*np.linspace(0, len(lines) - 1, min(POINTS, len(lines))).round().astype(int).tolist()})
    columns = {name: [lines[i].get(name) for i in kept] for name in SHOWN if name in lines[0]}
    return {"round": number + 1, "update": [i + 1 for i in kept], "columns": columns}


def _search(record: RunRecord, number: int) -> dict[str, Any]:
    """Histograms over all steps of a round's trees, roots left out.

    The files are read twice, for the range and for the counts, so that one file's columns are in memory at a time.
    """
    files = tree_files(record, number)
    low, high, most = np.inf, -np.inf, 1
    for q, visits in map(_steps, files):
        low, high = min(low, q.min(initial=np.inf)), max(high, q.max(initial=-np.inf))
        most = max(most, int(visits.max(initial=1)))
    low, high = (float(low), float(high)) if low <= high else (0.0, 1.0)
    edges = np.histogram_bin_edges([], BINS, (low, high if high > low else low + 1))
    # Visits fall off like a power law: doubling bins.
    powers = 2 ** np.arange(2 + int(np.log2(most)))
    heights, counts = np.zeros(len(edges) - 1, np.int64), np.zeros(len(powers) - 1, np.int64)
    for q, visits in map(_steps, files):
        heights += np.histogram(q, edges)[0]
        counts += np.histogram(visits, powers)[0]
    return {
        "round": number + 1,
        "q": {"edges": edges.round(4).tolist(), "counts": heights.tolist()},
        "visits": {"edges": powers.tolist(), "counts": counts.tolist()},
    }


def _steps(file: Path) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Q (finite ones) and visits of all steps of a tree file, from three of its columns."""
    table = read_table(file, columns=("parent", "q", "visits"))
    steps = table["parent"].to_numpy() >= 0
    q = table["q"].to_numpy()[steps]
    return q[np.isfinite(q)], table["visits"].to_numpy()[steps]


def strategies(record: RunRecord) -> list[dict[str, Any]]:
    """Every comparison of strategies (`eval --strategy … -o RUN` or a folder in it): its place, rows and sentences."""
    found = []
    for file in sorted([*record.directory.glob("strategies.parquet"), *record.directory.glob("*/strategies.parquet")]):
        comparison = StrategyComparison.load(file)
        place = str(file.parent.relative_to(record.directory))
        found.append(
            {
                "name": "" if place == "." else place,
                "problems": len(comparison.problem_ids),
                "rows": comparison.rows(),
                "sentences": comparison.sentences(),
            }
        )
    return found


def verdict_origins(record: RunRecord) -> list[dict[str, Any]]:
    """The layers of the verifiers that decided on the test answers, with their verdicts, over all evaluations of the
    run.

    The stored answers are verified again. Solutions without an answer are not counted.
    """
    tally: Counter[tuple[str, str]] = Counter()
    files = [record.directory / "baseline" / "evaluation.parquet"]
    files += [round_directory(record, line["round"]) / "evaluation.parquet" for line in record.rounds]
    for file in files:
        if not file.exists():
            continue
        for outcome in Evaluation.load(file).outcomes:
            for answer in (outcome.answer, *outcome.sample_answers):
                if answer is not None:
                    verdict = verify(outcome.reference, answer)
                    tally[verdict.layer or "none", verdict.outcome] += 1
    return [{"layer": layer, "outcome": outcome, "count": count} for (layer, outcome), count in sorted(tally.items())]


def round_directory(record: RunRecord, number: int) -> Path:
    """The directory of a round, counted from 0."""
    return record.directory / f"round-{number:03d}"


def tree_files(record: RunRecord, number: int) -> Sequence[Path]:
    """The tree shards of a round, in order."""
    return sorted((round_directory(record, number) / "trees").glob("*.parquet"))

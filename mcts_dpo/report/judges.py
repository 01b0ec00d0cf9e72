"""Evaluations of judges as text, as a plot of their reliability, and as data of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mcts_dpo.common.files import whole
from mcts_dpo.evaluation.judging import JudgeEvaluation

MEASURES = {
    "auc_conditional": "AUC of steps, all before right",
    "auc_same_depth": "the same, at equal depth",
    "auc_steps": "AUC of all steps",
    "auc_final": "AUC of solutions",
    "false_alarm": "false alarms (right step below threshold)",
    "miss": "misses (first error not below)",
    "error_accuracy": "first error found exactly",
    "right_accuracy": "no error found where none is",
    "f1": "F1 of these two (ProcessBench)",
    "brier": "Brier score of steps, all before right",
    "brier_final": "Brier score of solutions",
}
"""What each figure of `JudgeMetrics` is called, in the order in which they are shown."""


def judge_tables(result: JudgeEvaluation) -> RenderableType:
    """One judge: its figures with intervals, the figures by depth, and what it cost."""
    metrics = result.metrics
    table = Table(title=f"{result.name} (95 % intervals over problems)", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    table.add_column("value", justify="right", no_wrap=True)
    for name, words in MEASURES.items():
        table.add_row(words, _interval(metrics[name]))
    depths = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "right", "first errors", "AUC", "false alarms", "misses"):
        depths.add_column(heading, justify="right")
    for row in metrics["by_depth"]:
        rates = [_figure(row[name]) for name in ("auc", "false_alarm", "miss")]
        depths.add_row(str(row["depth"] + 1), str(row["right"]), str(row["errors"]), *rates)
    return Group(table, depths, Text("\n".join(sentences(result))))


def sentences(result: JudgeEvaluation) -> list[str]:
    """What the figures are of, in words."""
    metrics, cost = result.metrics, result.cost
    lines = [
        f"{metrics['solutions']} solutions of {metrics['problems']} problems from {result.data}.",
        f"Labels: {result.labels}. Threshold: {result.threshold}.",
        f"Cost: {cost.scores:,} scores, {cost.budget_tokens:,} tokens of a budget, {cost.sampled_tokens:,} sampled, "
        f"{cost.computed_tokens:,} prompt tokens computed, {cost.seconds:.1f} s.",
    ]
    if metrics["unscored"] or cost.failed:
        lines.append(f"No score: {metrics['unscored']} steps; {cost.failed} problems were refused by the engine.")
    return lines


def plot_reliability(result: JudgeEvaluation, path: Path) -> Path:
    """The share of right steps against the score, of steps with all before right and of whole solutions, as PNG.

    A calibrated judge lies on the diagonal. The area of a point grows with the number of steps. Written whole.
    """
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    for name, label, colour in (
        ("reliability", "steps, all before right", "#33568f"),
        ("reliability_final", "solutions", "#b3423a"),
    ):
        bins = result.metrics[name]
        if bins:
            total = sum(one["count"] for one in bins)
            x, y = [one["score"] for one in bins], [one["right"] for one in bins]
            axes.plot(x, y, color=colour, linewidth=1)
            axes.scatter(x, y, [20 + 400 * one["count"] / total for one in bins], color=colour, alpha=0.6, label=label)
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1), title=result.name)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", fontsize="small")
    with whole(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png", bbox_inches="tight")
    return path


def judge_figures(directory: Path) -> list[dict[str, Any]]:
    """Every evaluation of a judge in a run (`judge-eval … -o RUN/judges`), for the report's charts."""
    results = [JudgeEvaluation.load(file) for file in sorted((directory / "judges").glob("*.json"))]
    return [
        asdict(result) | {"name": result.name, "measures": MEASURES, "sentences": sentences(result)}
        for result in results
    ]


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

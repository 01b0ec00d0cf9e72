"""Plots as PNG files: a run's accuracy per round, what training did to the steps it compared, and strategies at equal
budgets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mcts_dpo.common.files import read_json_lines, whole
from mcts_dpo.evaluation import StrategyComparison
from mcts_dpo.report.text import RunRecord

_CHOSEN, _REJECTED, _ACCENT = "#2a7f62", "#b3423a", "#33568f"


def write_plots(record: RunRecord) -> list[Path]:
    """Draw every plot for which the run has data into its directory. Returns the files, each written whole."""
    plots = [_save(_accuracy(record), record.directory / "accuracy.png")]
    logs = [record.directory / f"round-{line['round']:03d}" / "training" / "log.jsonl" for line in record.rounds]
    updates = [update for log in logs if log.exists() for update in read_json_lines(log)]
    if updates:
        plots.append(_save(_training(updates), record.directory / "training.png"))
    return plots


def plot_strategies(comparison: StrategyComparison, path: Path) -> Path:
    """Accuracy against tokens truly generated per problem (Wilson intervals), and, where majority was run, the
    difference from it at the same budget (paired bootstrap); all at 95 %. Written whole to `path`."""
    rows = comparison.rows()
    compared = [row for row in rows if row["minus_majority"] is not None]
    figure = Figure(figsize=(11 if compared else 6, 4.2))
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False)[0]
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    for place, name in enumerate(names):
        style = {"marker": "os^Dv<>"[place % 7], "color": f"C{place}", "label": name, "capsize": 3}
        for axes, column in zip(panels, ("accuracy", "minus_majority"), strict=False):
            shown = [row for row in rows if row["strategy"] == name and row[column] is not None]
            y = [row[column] for row in shown]
            low = [row[column] - row[f"{column}_low"] for row in shown]
            high = [row[f"{column}_high"] - row[column] for row in shown]
            if shown:
                axes.errorbar([row["tokens"] for row in shown], y, yerr=[low, high], **style)
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("tokens generated per problem (mean)")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    panels[0].set_ylabel("accuracy")
    if compared:
        panels[1].axhline(0.0, color="#888888", linewidth=1)
        panels[1].set_ylabel("accuracy − majority's at the same budget")
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    with whole(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png", bbox_inches="tight")
    return path


def _accuracy(record: RunRecord) -> Figure:
    """Test accuracy with 95 % intervals, and first-sample accuracy on each round's fresh problems."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    x = [line["round"] + 1 for line in record.metrics]
    greedy = [line["test"]["greedy"] for line in record.metrics]
    errors = [[e["value"] - e["low"] for e in greedy], [e["high"] - e["value"] for e in greedy]]
    axes.errorbar(
        x, [e["value"] for e in greedy], yerr=errors, marker="o", capsize=3, color=_ACCENT, label="greedy, test"
    )
    # A round's fresh problems are searched with the policy that the round starts from.
    fresh = [(line["round"], line["search"]["first_sample_accuracy"]) for line in record.rounds]
    axes.plot(
        *zip(*fresh, strict=True), marker="s", linestyle="--", color="#888888", label="first sample, fresh problems"
    )
    axes.set(xlabel="rounds of self-training", ylabel="accuracy", ylim=(0, 1), xticks=x)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _training(updates: list[dict[str, Any]]) -> Figure:
    """Loss, and (for preference objectives) the log-probabilities of chosen and rejected steps, by update."""
    has_pairs = any(update.get("chosen_logprob") is not None for update in updates)
    figure = Figure(figsize=(10 if has_pairs else 5, 4))
    panels = figure.subplots(1, 2 if has_pairs else 1, squeeze=False)[0]
    x = range(1, len(updates) + 1)
    panels[0].plot(x, _column(updates, "loss"), color=_ACCENT)
    panels[0].set(xlabel="update (all rounds)", ylabel="loss")
    panels[0].grid(alpha=0.3)
    if has_pairs:
        for name, colour in (("chosen", _CHOSEN), ("rejected", _REJECTED)):
            panels[1].plot(x, _column(updates, f"{name}_logprob"), color=colour, label=name)
        panels[1].set(xlabel="update (all rounds)", ylabel="log-probability of the step (nats)")
        panels[1].grid(alpha=0.3)
        panels[1].legend()
    return figure


def _column(updates: list[dict[str, Any]], name: str) -> list[float]:
    """A figure of every update. Missing and infinite values become NaN, which is drawn as a gap."""
    values = [update.get(name) for update in updates]
    return [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]

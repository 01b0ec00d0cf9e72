"""A run's plots as PNG files: accuracy per round, and what training did to the steps it compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mcts_dpo.files import read_json_lines, whole
from mcts_dpo.report.text import RunRecord

_CHOSEN, _REJECTED, _ACCENT = "#2a7f62", "#b3423a", "#33568f"


def write_plots(record: RunRecord) -> list[Path]:
    """Draw what the run has data for into its directory. Returns the files, each written whole."""
    plots = [_save(_accuracy(record), record.directory / "accuracy.png")]
    logs = [record.directory / f"round-{line['round']:03d}" / "training" / "log.jsonl" for line in record.rounds]
    updates = [update for log in logs if log.exists() for update in read_json_lines(log)]
    if updates:
        plots.append(_save(_training(updates), record.directory / "training.png"))
    return plots


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
    panels[0].plot(x, [update["loss"] for update in updates], color=_ACCENT)
    panels[0].set(xlabel="update (all rounds)", ylabel="loss")
    panels[0].grid(alpha=0.3)
    if has_pairs:
        for name, colour in (("chosen", _CHOSEN), ("rejected", _REJECTED)):
            values = [update.get(f"{name}_logprob") for update in updates]
            panels[1].plot(x, values, color=colour, label=name)
        panels[1].set(xlabel="update (all rounds)", ylabel="log-probability of the step (nats)")
        panels[1].grid(alpha=0.3)
        panels[1].legend()
    return figure

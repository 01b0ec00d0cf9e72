"""A finished or unfinished run as text: what was gained, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json_lines
from mcts_dpo.common.settings import read_yaml
from mcts_dpo.evaluation import StrategyComparison
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.judges import search_rewards
from mcts_dpo.rewards.combine import formula


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The contents of a run directory.

    metrics: one dictionary per evaluated policy, the starting one (round -1) first if it was measured.
    timings: one dictionary per finished stage: place, stage, seconds (wall clock).
    formula: the formula of the reward, the judges of later rounds included, and its range; "" for an older run.
    """

    directory: Path
    metrics: tuple[dict[str, Any], ...]
    timings: tuple[dict[str, Any], ...]
    formula: str = ""

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The metrics of the rounds, without the starting policy's."""
        return [line for line in self.metrics if line["round"] >= 0]

    def seconds(self, round_: int) -> float:
        """Wall-clock seconds of all stages of a round (-1: the starting policy's evaluation)."""
        place = "baseline" if round_ < 0 else f"round-{round_:03d}"
        return float(sum(line["seconds"] for line in self.timings if line["place"] == place))


def load_run(directory: Path) -> RunRecord:
    """Read a run directory. Raises InputError when it is none, or when no round has finished yet."""
    directory = Path(directory)
    if not (directory / "config.yaml").exists():
        raise InputError(f"{directory}: not a run directory (it has no config.yaml)")
    timings, file = directory / "timings.jsonl", directory / "metrics.jsonl"
    metrics = tuple(read_json_lines(file)) if file.exists() else ()
    if not metrics:
        raise InputError(f"{directory}: no round has finished yet; run it again with the same command to continue")
    for number, line in enumerate(metrics, start=1):
        missing = next((name for name in ("round", "test") if name not in line), None)
        if missing:
            raise InputError(f"{file}, line {number}: no {missing!r}; accepted: what `run` wrote")
    return RunRecord(
        directory,
        metrics,
        tuple(read_json_lines(timings)) if timings.exists() else (),
        _formula(directory / "config.yaml"),
    )


def _formula(config: Path) -> str:
    try:
        found = RunConfig.model_validate(read_yaml(config))
    except (InputError, ValueError):
        return ""
    # Where each judge is does not matter here.
    rewards = search_rewards(found.search.rewards, found.judges, {judge.kind: config for judge in found.judges})
    return formula(rewards, found.search.accumulate)


def interval(estimate: dict[str, float]) -> str:
    """ "0.512 [0.48, 0.54]"."""
    return f"{estimate['value']:.3f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def accuracy_table(record: RunRecord) -> Table:
    """One row per policy, the starting one first.

    Columns: greedy accuracy on the test problems with its interval, and its gain over the start; accuracy of the first
    sample of each fresh problem, pairs found and tokens sampled in the round's search; seconds of the round.
    """
    table = Table(title="Accuracy per round (95 % intervals)", box=box.SIMPLE_HEAD, pad_edge=False)
    # Narrow enough for a terminal of 80 columns.
    headings = ("policy", "greedy on test", "gain", "1st sample", "pairs", "tokens", "seconds")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for line in record.metrics:
        search = line.get("search", {})
        against = line.get("against_baseline")
        table.add_row(
            "start" if line["round"] < 0 else f"round {line['round'] + 1}",
            interval(line["test"]["greedy"]),
            f"{against['difference']['value']:+.3f}" if against else "",
            f"{search['first_sample_accuracy']:.3f}" if search else "",
            str(line.get("pairs", "")),
            f"{search['sampled_tokens']:,}" if search else "",
            f"{record.seconds(line['round']):.0f}",
        )
    return table


def summary_text(record: RunRecord) -> RenderableType:
    """The whole text report: the table, then one line for each notable event."""
    notes = [_gain_sentence(record), f"Values: {record.formula}." if record.formula else ""]
    for line in record.rounds:
        name = f"round {line['round'] + 1}"
        if not line["accepted"]:
            reason = "rolled back by the development problems" if "training" in line else "nothing to learn from"
            notes.append(f"{name}: {reason}; the policy stays the one before it.")
        notes += [f"{name}: {alarm}" for alarm in line.get("training", {}).get("alarms", [])]
        failed = line["search"]["failed"]
        if failed:
            notes.append(f"{name}: {failed} problems could not be searched; their trees say why.")
        missed = {key.removeprefix("unscored_"): n for key, n in line["search"].items() if key.startswith("unscored_")}
        notes += [f"{name}: {kind} gave no score for {count} paths." for kind, count in missed.items()]
    return Group(accuracy_table(record), Text("\n".join(note for note in notes if note)))


def _gain_sentence(record: RunRecord) -> str:
    if not record.rounds or "against_baseline" not in record.rounds[-1]:
        return ""
    last = record.rounds[-1]["against_baseline"]
    low, high = last["difference"]["low"], last["difference"]["high"]
    verdict = "beyond noise" if low > 0 or high < 0 else "within noise"
    return (
        f"Last round against the start: {last['difference']['value']:+.3f} [{low:+.3f}, {high:+.3f}], "
        f"{last['gained']} gained, {last['lost']} lost, McNemar p = {last['p_value']:.2g}: {verdict}."
    )


def evaluation_table(metrics: dict[str, Any]) -> Table:
    """One evaluation's metrics (`Evaluation.summary()`), one per row."""
    table = Table(title=f"{metrics['problems']} problems (95 % intervals)")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        if isinstance(value, dict) and "low" in value:
            table.add_row(name, interval(value))
        elif name == "against":
            change = (
                f"{value['difference']['value']:+.3f} (+{value['gained']} −{value['lost']}, p {value['p_value']:.2g})"
            )
            table.add_row("against the other", change)
        elif name != "problems":
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table


def training_table(summary: Mapping[str, Any]) -> RenderableType:
    """What a training did (`TrainingSummary.as_dict()`): each figure at the first update and at the end; its size."""
    table = Table(title=f"{summary['objective']}: {summary['updates']} updates", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("figure", "first update", "mean of the last ten"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, value in summary["first"].items():
        last = summary["last"].get(name)
        table.add_row(name, f"{value:.4g}", "" if last is None else f"{last:.4g}")
    said = [
        f"{summary['rows']:,} rows, {summary['epochs']:.3g} epochs, {summary['tokens']:,} tokens, "
        f"{summary['parameters']:,} trained weights"
    ]
    return Group(table, Text("\n".join([*said, *summary["alarms"], *summary["notes"]])))


def strategies_table(comparison: StrategyComparison) -> RenderableType:
    """Strategies at equal budgets: one row per strategy and budget, then the differences in words.

    tokens: spent per problem; judge: those of judges among them; s: seconds per problem, all of them side by side.
    """
    count = len(comparison.problem_ids)
    # Narrow enough for a terminal of 80 columns.
    title = f"{count} problems (95 % intervals)"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("strategy", "budget", "tokens", "judge", "s", "accuracy", "− majority", "+/−"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=True)
    for row in comparison.rows():
        accuracy = {"value": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
        difference = gained = ""
        if row["minus_majority"] is not None:
            low, high = row["minus_majority_low"], row["minus_majority_high"]
            difference = f"{row['minus_majority']:+.2f} [{low:+.2f}, {high:+.2f}]"
            gained = f"{row['gained']}/{row['lost']}"
        costs = (f"{row['budget']:,}", f"{row['tokens']:,.0f}", f"{row['judge_tokens']:,.0f}", f"{row['seconds']:.2f}")
        measured = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**accuracy)
        cells = (*costs, measured, difference, gained)
        table.add_row(row["strategy"], *cells)
    return Group(table, Text("\n".join(comparison.sentences())))

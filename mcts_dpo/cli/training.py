"""The commands that turn trees into tables, and tables into policies and judges."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mcts_dpo.cli.common import ConfigOption, JsonFlag, ModelOption, Overrides, policy_named, stage_config, tree_files
from mcts_dpo.common.console import err_console, live_progress, out_console, say, say_json
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import tracked

app = typer.Typer()


class PairsFormat(StrEnum):
    """The formats that `pairs` writes."""

    tables = "tables"
    trl = "trl"


@app.command()
def pairs(
    trees: Annotated[list[Path], typer.Argument(help="Tree files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pairs, siblings, solutions and steps.parquet.")],
    config: ConfigOption = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="A setting, as preferences.name=value.")] = None,
    format_: Annotated[
        PairsFormat, typer.Option("--format", help="tables: all columns; trl: dpo/, kto/, sft/, prm/ for TRL.")
    ] = PairsFormat.tables,
    card: Annotated[bool, typer.Option("--card", help="Also write the data set's card, README.md.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The policy's name, for the card.")] = None,
    license_: Annotated[str, typer.Option("--license", help="The data's licence, for the card.")] = "unknown",
    push: Annotated[str | None, typer.Option("--push", help="ORG/NAME: upload to the hub, card included.")] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: a private data set.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn trees into step-level preference pairs (TRL columns included), lists, solutions, and labelled steps."""
    from mcts_dpo.preferences import push_to_hub, save_tables, tables_of, write_card, write_trl
    from mcts_dpo.search.tree_io import settings_of

    settings = stage_config(config, setting)
    files = tree_files(trees)
    with live_progress(err_console) as progress:
        parts = (tables_of(file, settings.preferences) for file in tracked(progress, "pairs", files))
        found = write_trl(out, parts) if format_ is PairsFormat.trl else save_tables(parts, out)
    if card or push is not None or (format_ is PairsFormat.trl and (found.pairs or found.paths)):
        about = {"preferences": settings.preferences.model_dump(mode="json"), **settings_of(files[0])}
        policy = model or getattr(settings, "model", None)
        write_card(out, model=policy, license=license_, settings=about)
    pushed = None
    if push is not None:
        with live_progress(err_console) as progress:
            progress(f"upload to {push}", 0, 0)
            pushed = push_to_hub(out, push, private=private)
    if as_json:
        say_json({**found._asdict(), "out": str(out), "pushed": pushed})
        return
    say(
        f"{found.pairs} pairs, {found.lists} lists of siblings, {found.solutions} solutions "
        f"and {found.paths} paths of labelled steps from {found.trees} trees in {out}"
    )
    if not found.pairs:
        gap = settings.preferences.min_gap
        say(f"No pairs: no parent has two children whose Q differs by preferences.min_gap = {gap:g} or more.")
    if pushed:
        say(pushed)


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new policy (Hugging Face format).")],
    overrides: Overrides = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Our pairs, siblings, solutions or steps (Parquet), or TRL-style data: a file or a hub name.",
        ),
    ] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    value: Annotated[bool, typer.Option("--value", help="Train a value model on the policy's trunk instead.")] = False,
    self_evaluation: Annotated[
        Path | None,
        typer.Option(
            help="steps.parquet: the policy also learns to judge its own steps, from questions about these. Without "
            "--data, from them alone."
        ),
    ] = None,
    process_reward: Annotated[
        bool,
        typer.Option("--process-reward", help="Train a process reward model instead, from steps.parquet of `pairs`."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a policy, or a judge of steps (settings: training.objective=step_dpo|rft|…; see docs/training.md).

    During training, OUT.unfinished/ holds the live log and the checkpoint from which the same command continues after a
    kill. At the end OUT and OUT.training.jsonl appear. Under torchrun all processes train one policy together.
    """
    kinds = {"--value": value, "--process-reward": process_reward, "--self-evaluation": self_evaluation is not None}
    if sum(kinds.values()) > 1:
        given_together = " and ".join(name for name, given in kinds.items() if given)
        raise InputError(f"{given_together}: two trainings (accepted: one of them at a time)")
    if data is None and self_evaluation is None:
        raise InputError("no --data (accepted: a table, TRL-style data, or --self-evaluation with labelled steps)")
    settings = stage_config(config, overrides)
    policy = policy_named(settings, model)
    log, board = out.parent / f"{out.name}.training.jsonl", out.parent / f"{out.name}.tensorboard"
    with live_progress(err_console) as progress:
        progress("load policy", 0, 0)
        from mcts_dpo.training import train as train_policy
        from mcts_dpo.training import train_process_reward, train_self_evaluation, train_value

        given: Any = {"log": log, "board": board, "progress": progress}
        if self_evaluation is not None:
            summary = train_self_evaluation(
                policy, self_evaluation, out, settings.training, settings.prompt, data=data, **given
            )
        elif value or process_reward:
            train_head = train_value if value else train_process_reward
            summary = train_head(policy, Path(str(data)), out, settings.training, **given)
        else:
            summary = train_policy(policy, str(data), out, settings.training, **given)
    if not main_process():
        return
    if as_json:
        say_json(summary.as_dict())
    else:
        from mcts_dpo.report import training_table

        out_console.print(training_table(summary.as_dict()))


def main_process() -> bool:
    """Whether this process prints for all processes that `torchrun` started together."""
    return int(os.environ.get("RANK", "0")) == 0

"""The commands that show something and change nothing but their own pages: a run's report, a tree, this machine, the
settings. For the command line to take in: parse, call one function, print.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mcts_dpo.options import ConfigOption, ModelOption, Overrides, stage_config

app = typer.Typer()
out_console = Console()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _print(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    as_json: JsonFlag = False,
) -> None:
    """Sum up a run as text; write report.html (figures and a tree browser, one file) and PNG plots into it."""
    from mcts_dpo.report import load_run, summary_text, write_html, write_plots

    record = load_run(directory)
    plots, page = write_plots(record), write_html(record)
    if as_json:
        written = {"plots": [str(plot) for plot in plots], "page": str(page)}
        _print({"metrics": list(record.metrics), "timings": list(record.timings), **written})
    else:
        out_console.print(summary_text(record))
        typer.echo("\n".join(map(str, [*plots, page])))


@app.command()
def tree(
    source: Annotated[Path, typer.Argument(help="A run directory, a folder of tree files, or one tree file.")],
    problem: Annotated[str | None, typer.Argument(help="Id of a problem; without it, the ids are listed.")] = None,
    round_: Annotated[int | None, typer.Option("--round", help="Only this round (from 1).", min=1)] = None,
    depth: Annotated[int, typer.Option(help="Steps below the root.", min=1)] = 8,
    children: Annotated[int, typer.Option(help="Children of a step, most visited first.", min=1)] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Show the search tree of a problem: visits, action values, priors, outcomes, text."""
    from mcts_dpo.report import find_trees
    from mcts_dpo.report.browsing import tree_object
    from mcts_dpo.search import render_tree

    found = find_trees(source, problem, round_)
    if as_json:
        _print([{"file": where, **tree_object(forest, index, [])} for where, forest, index in found])
        return
    for where, forest, index in found:
        if problem is None:
            info = forest.trees[index]
            typer.echo(f"{info.problem_id}\t{where}\t{len(forest.nodes(index))} steps\t{info.status}")
        else:
            out_console.print(f"[dim]{where}[/dim]")
            out_console.print(render_tree(forest, index, max_depth=depth, max_children=children))


@app.command(name="settings")
def settings_reference() -> None:
    """Print every setting with its default, what it accepts and what it means, as Markdown (docs/configuration.md)."""
    from mcts_dpo.reference import configuration

    typer.echo(configuration(), nl=False)


@app.command()
def doctor(
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is installed, which engine runs and why, whether a model's memory suffices, and what to install."""
    from mcts_dpo.doctor import diagnose

    settings = stage_config(config, overrides)
    found = diagnose(settings, model or getattr(settings, "model", None))
    if as_json:
        _print([finding.as_dict() for finding in found])
        return
    marks = {"ok": "[green]✓[/green]", "note": "[dim]·[/dim]", "missing": "[red]✗[/red]"}
    for finding in found:
        out_console.print(
            f"{marks[finding.level]} [bold]{finding.topic}[/bold]  {escape(finding.text)}", highlight=False
        )
        if finding.remedy:
            out_console.print(f"    → {escape(finding.remedy)}", style="dim", highlight=False)

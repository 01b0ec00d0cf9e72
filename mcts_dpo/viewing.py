"""The commands that show something and change nothing but their own pages: a run's report, a tree, published methods,
what a policy reads, the settings, this machine. For the command line to take in: parse, call one function, print.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mcts_dpo.console import live_progress
from mcts_dpo.files import standard_json
from mcts_dpo.options import (
    ConfigOption,
    ModelOption,
    Overrides,
    ProblemsOption,
    load_named_problems,
    policy_named,
    stage_config,
)

app = typer.Typer()
out_console = Console()
err_console = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _print(data: Any) -> None:
    typer.echo(standard_json(data, indent=2, sort_keys=True))


def _print_each(items: Iterable[Any]) -> None:
    """As `_print` of a list, one item in memory at a time."""
    before = "[\n"
    for item in items:
        text = standard_json(item, indent=2, sort_keys=True)
        typer.echo(before + "  " + text.replace("\n", "\n  "), nl=False)
        before = ",\n"
    typer.echo("\n]" if before == ",\n" else "[]")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    as_json: JsonFlag = False,
) -> None:
    """Sum up a run as text; write report.html (figures and a tree browser, one file) and PNG plots into it."""
    with live_progress(err_console) as progress:
        progress("start", 0, 0)
        from mcts_dpo.report import load_run, summary_text, write_report

        record = load_run(directory)
        *plots, page = write_report(record, progress)
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
    from mcts_dpo.report import find_trees, list_trees
    from mcts_dpo.report.browsing import tree_object
    from mcts_dpo.search import render_tree

    if as_json:
        found = find_trees(source, problem, round_)
        _print_each({"file": where, **tree_object(forest, index, [])} for where, forest, index in found)
        return
    if problem is None:
        for where, info, nodes in list_trees(source, round_):
            typer.echo(f"{info.problem_id}\t{where}\t{nodes} steps\t{info.status}")
        return
    with live_progress(err_console) as progress:
        those = list(find_trees(source, problem, round_, progress))
    for where, forest, index in those:
        out_console.print(f"[dim]{where}[/dim]")
        out_console.print(render_tree(forest, index, max_depth=depth, max_children=children))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this one's settings.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the published methods that `run --recipe` knows, or show one."""
    from mcts_dpo.recipes import as_yaml, load_recipe, recipe_names

    found = {each: load_recipe(each) for each in (recipe_names() if name is None else [name])}
    if as_json:
        _print({each: recipe.model_dump(mode="json") for each, recipe in found.items()})
        return
    for each, recipe in found.items():
        out_console.print(f"[bold]{each}[/bold]  {recipe.reproduces}", highlight=False)
        out_console.print(f"  {recipe.source}", highlight=False, markup=False)
        for difference in recipe.approximates:
            out_console.print(f"  - {difference}", highlight=False, markup=False)
        if name:
            out_console.print("\n" + as_yaml(recipe), highlight=False, markup=False)


@app.command()
def prompts(
    overrides: Overrides = None,
    model: ModelOption = None,
    problems: ProblemsOption = None,
    config: ConfigOption = None,
    count: Annotated[int, typer.Option(help="Problems to show.", min=1)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Show what the policy reads: the rendered prompt, its tokens, and the self-evaluation question."""
    from mcts_dpo.prompts import prompt_tokens, self_evaluation

    settings = stage_config(config, overrides)
    items = load_named_problems(settings, problems, "train")[:count]
    policy = policy_named(settings, model)
    with live_progress(err_console) as progress:
        progress("load tokenizer", 0, 0)
        from mcts_dpo.models import load_tokenizer

        tokenizer = load_tokenizer(policy)
    suffix, _ = self_evaluation(tokenizer, settings.prompt)
    asked = tokenizer.decode(list(suffix))
    shown = []
    for problem in items:
        tokens = prompt_tokens(problem, tokenizer, settings.prompt)
        shown.append({"id": problem.id, "text": tokenizer.decode(list(tokens)), "tokens": list(tokens)})
    if as_json:
        _print({"prompts": shown, "self_evaluation": {"text": asked, "tokens": list(suffix)}})
        return
    for item in shown:
        out_console.rule(f"{item['id']}: {len(item['tokens'])} tokens")
        out_console.print(item["text"], markup=False, highlight=False)
    out_console.rule(f"self-evaluation, after the solution: {len(suffix)} tokens")
    out_console.print(asked, markup=False, highlight=False)


@app.command(name="settings")
def settings_reference(
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON Schema of a run's file instead.")] = False,
) -> None:
    """Print every setting with its default, what it accepts and what it means, as Markdown (docs/configuration.md)."""
    from mcts_dpo.config import RunConfig
    from mcts_dpo.reference import configuration

    if as_json:
        _print(RunConfig.model_json_schema())
    else:
        typer.echo(configuration(), nl=False)


@app.command()
def doctor(
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is installed, which engine runs and why, whether a model's memory suffices, and what to install."""
    settings = stage_config(config, overrides)
    with live_progress(err_console) as progress:
        progress("look around", 0, 0)
        from mcts_dpo.doctor import diagnose

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

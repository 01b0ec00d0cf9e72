"""The commands that show something: a run's report, a tree, recipes, prompts, the settings, this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mcts_dpo.cli.common import (
    ConfigOption,
    JsonFlag,
    ModelOption,
    Overrides,
    ProblemsOption,
    load_named_problems,
    policy_named,
    stage_config,
)
from mcts_dpo.common.console import err_console, live_progress, out_console, say, say_json, say_json_list

app = typer.Typer()


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    as_json: JsonFlag = False,
) -> None:
    """Summarise a run as text; write report.html (figures and a tree browser in one file) and PNG plots into it."""
    with live_progress(err_console) as progress:
        progress("start", 0, 0)
        from mcts_dpo.report import load_run, summary_text, write_report

        record = load_run(directory)
        *plots, page = write_report(record, progress)
    if as_json:
        written = {"plots": [str(plot) for plot in plots], "page": str(page)}
        say_json({"metrics": list(record.metrics), "timings": list(record.timings), **written})
    else:
        out_console.print(summary_text(record))
        say("\n".join(map(str, [*plots, page])))


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
    from mcts_dpo.report.tree_json import tree_object
    from mcts_dpo.search import render_tree

    if as_json:
        with live_progress(err_console) as progress:
            found = find_trees(source, problem, round_, progress)
            say_json_list({"file": where, **tree_object(forest, index, [])} for where, forest, index in found)
        return
    if problem is None:
        for where, info, nodes in list_trees(source, round_):
            say(f"{info.problem_id}\t{where}\t{nodes} steps\t{info.status}")
        return
    with live_progress(err_console) as progress:
        those = list(find_trees(source, problem, round_, progress))
    for where, forest, index in those:
        out_console.literal(where, "dim")
        out_console.print(render_tree(forest, index, max_depth=depth, max_children=children))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this one's settings.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the published methods that `run --recipe` knows, or show one."""
    from mcts_dpo.common.settings import as_yaml
    from mcts_dpo.pipeline.recipes import load_recipe, recipe_names

    found = {each: load_recipe(each) for each in (recipe_names() if name is None else [name])}
    if as_json:
        say_json({each: recipe.model_dump(mode="json") for each, recipe in found.items()})
        return
    for each, recipe in found.items():
        out_console.labelled(each, f"  {recipe.reproduces}")
        out_console.literal(f"  {recipe.source}")
        for difference in recipe.approximates:
            out_console.literal(f"  - {difference}")
        if name:
            out_console.literal("\n" + as_yaml(recipe.settings))


@app.command()
def prompts(
    overrides: Overrides = None,
    model: ModelOption = None,
    problems: ProblemsOption = None,
    config: ConfigOption = None,
    count: Annotated[int, typer.Option(help="Problems to show.", min=1)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Show the rendered prompt, its tokens, and the self-evaluation question."""
    from mcts_dpo.models.prompts import prompt_tokens, self_evaluation

    settings = stage_config(config, overrides)
    items = load_named_problems(settings, problems, "train")[:count]
    policy = policy_named(settings, model)
    with live_progress(err_console) as progress:
        progress("load tokenizer", 0, 0)
        from mcts_dpo.models.loading import load_tokenizer

        tokenizer = load_tokenizer(policy)
    suffix, _ = self_evaluation(tokenizer, settings.prompt)
    asked = tokenizer.decode(list(suffix))
    shown = []
    for problem in items:
        tokens = prompt_tokens(problem, tokenizer, settings.prompt)
        shown.append({"id": problem.id, "text": tokenizer.decode(list(tokens)), "tokens": list(tokens)})
    if as_json:
        say_json({"prompts": shown, "self_evaluation": {"text": asked, "tokens": list(suffix)}})
        return
    for item in shown:
        out_console.rule(f"{item['id']}: {len(item['tokens'])} tokens")
        out_console.literal(item["text"])
    out_console.rule(f"self-evaluation, after the solution: {len(suffix)} tokens")
    out_console.literal(asked)


@app.command(name="settings")
def settings_reference(
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON Schema of a run's file instead.")] = False,
    migrate: Annotated[
        Path | None, typer.Option("--migrate", help="Print a config of the first edition with today's names instead.")
    ] = None,
) -> None:
    """Print every setting with its default, accepted values and meaning, as Markdown (docs/configuration.md)."""
    from mcts_dpo.cli.settings_reference import configuration
    from mcts_dpo.common.settings import as_yaml, read_yaml
    from mcts_dpo.pipeline.config import RunConfig
    from mcts_dpo.pipeline.migrate import migrated

    if migrate is not None:
        say(as_yaml(migrated(read_yaml(migrate), str(migrate))).removesuffix("\n"))
    elif as_json:
        say_json(RunConfig.model_json_schema())
    else:
        say(configuration().removesuffix("\n"))


@app.command()
def doctor(
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what is installed, which engine runs and why, whether a model fits into memory, and what to install."""
    settings = stage_config(config, overrides)
    with live_progress(err_console) as progress:
        progress("look around", 0, 0)
        from mcts_dpo.cli.doctor import diagnose

        found = diagnose(settings, model or getattr(settings, "model", None))
    if as_json:
        say_json([finding.as_dict() for finding in found])
        return
    marks = {"ok": ("✓", "green"), "note": ("·", "dim"), "missing": ("✗", "red")}
    for finding in found:
        out_console.print(Text.assemble(marks[finding.level], " ", (finding.topic, "bold"), f"  {finding.text}"))
        if finding.remedy:
            out_console.print(Text(f"    → {finding.remedy}", "dim"))

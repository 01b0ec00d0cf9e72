"""The command line: each command parses its options, calls one function and prints the result.

Exit codes: 0; 2 for input that the user can fix (one line on stderr); 75 if the same command can continue (memory ran
out in a model in shards); 1 for any other failure; 130 when interrupted (finished work is kept). `--debug` before the
command shows tracebacks.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mcts_dpo.cli import integrations, judging, training
from mcts_dpo.cli import show as viewing
from mcts_dpo.cli.common import (
    ConfigOption,
    JsonFlag,
    ModelOption,
    Overrides,
    ProblemsOption,
    SecondsOption,
    engine_of,
    load_extension,
    load_named_problems,
    policy_named,
    stage_config,
    with_own_sampling,
    with_seconds,
)
from mcts_dpo.cli.exits import run_app
from mcts_dpo.common.console import err_console, live_progress, out_console, say, say_json
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_encodable, write_json

app = typer.Typer(
    name="mcts-dpo",
    help="Step-level reasoning by tree search, and self-training on the preferences that the trees reveal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Heavy libraries are imported inside the commands, so that `--help` and usage errors answer at once.


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Watch a tiny policy improve itself on the built-in arithmetic world, in about five minutes."""
    with live_progress(err_console) as progress:
        progress("start", 0, 0)
        from mcts_dpo.toy.demo import demo as run_demo
        from mcts_dpo.toy.demo import show

        summary = run_demo(out, seed=seed, progress=progress)
    if as_json:
        say_json(asdict(summary))
    else:
        show(out, summary, out_console)


@app.command()
def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; the same command continues it.")],
    overrides: Overrides = None,
    config: ConfigOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="Start from a published method (see `mcts-dpo recipes`), or a .yaml file of one.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Continue with changed settings; finished stages stay as they are.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Search on a Ray cluster: HOST:PORT, auto, local or local:WORKERS."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Search, train, evaluate, round after round."""
    from mcts_dpo.common.settings import load_settings
    from mcts_dpo.pipeline.config import RunConfig
    from mcts_dpo.pipeline.recipes import load_recipe, recipe_config

    if recipe:
        settings = recipe_config(load_recipe(recipe), config, overrides or [])
    else:
        settings = load_settings(RunConfig, config, overrides or [], "run")
    with ExitStack() as stack:
        progress = stack.enter_context(live_progress(err_console))
        progress("start", 0, 0)
        from mcts_dpo.pipeline.rounds import run as run_rounds
        from mcts_dpo.pipeline.stages import LOCAL
        from mcts_dpo.report import load_run, summary_text, write_report

        executors = LOCAL
        if ray is not None:
            from mcts_dpo.integrations.ray import ray_executors

            executors = stack.enter_context(ray_executors(ray))
        result = run_rounds(
            with_own_sampling(settings, settings.model), out, executors=executors, force=force, progress=progress
        )
        record = load_run(out)
        write_report(record, progress)
    if as_json:
        say_json({"baseline": result.baseline, "rounds": list(result.rounds), "policy": result.policy})
    else:
        out_console.print(summary_text(record))
        say(f"Policy: {result.policy}")


@app.command()
def problems(
    source: Annotated[str, typer.Argument(help="A file (JSONL, CSV, Parquet) or the name of a hub data set.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the problems as JSONL.")] = None,
    against: Annotated[str | None, typer.Option(help="Another problem set, to check for shared questions.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Load, check and convert a problem set (settings: format, split, subset, columns, limit, …)."""
    from mcts_dpo.common.settings import load_settings
    from mcts_dpo.data import ProblemSettings, load_problems, overlap, save_problems, unparsable_answers

    settings = load_settings(ProblemSettings, {"source": source}, overrides or [], "problems")
    with live_progress(err_console) as progress:
        progress("load", 0, 0)
        found = load_problems(settings)
        progress("check", 0, 0)
        unparsable = unparsable_answers(found)
        shared = overlap(found, load_problems(against)) if against else []
    report: dict[str, Any] = {
        "problems": len(found),
        "without_answer": sum(problem.answer is None for problem in found),
        "unparsable_answers": [problem.id for problem in unparsable],
    }
    if against:
        report["shared_with_other"] = [list(pair) for pair in shared]
    if out:
        save_problems(out, found)
        report["written"] = str(out)
    if as_json:
        say_json(report)
        return
    first = found[0]
    say(f"{len(found)} problems; {report['without_answer']} without an answer.")
    if unparsable:
        named = ", ".join(f"{problem.id} ({problem.answer!r})" for problem in unparsable[:5])
        say(f"{len(unparsable)} answers cannot be parsed; they are kept and only match themselves: {named}")
    if against:
        say(f"{len(shared)} questions are shared with {against}.")
    say(f"First: {first.id}\n{first.question}\n→ {first.answer}")


@app.command()
def search(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trees, one Parquet file per shard.")],
    overrides: Overrides = None,
    model: ModelOption = None,
    problems: ProblemsOption = None,
    config: ConfigOption = None,
    shard_size: Annotated[int, typer.Option(help="Problems per shard; a finished shard is not repeated.", min=1)] = 32,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples; default: search.seed.", min=0)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Search one tree per problem. No tree waits for another unless search.schedule=synchronous is given."""
    from mcts_dpo.search import policy_fingerprint, search_shards
    from mcts_dpo.search.tree_io import tree_infos

    settings = stage_config(config, overrides)
    items = load_named_problems(settings, problems, "train")
    policy = policy_named(settings, model)
    settings = with_own_sampling(settings, policy)
    changes: dict[str, Any] = {} if seed is None else {"seed": seed}
    if "schedule" not in settings.search.model_fields_set:
        changes["schedule"] = "asynchronous"
    search_settings = settings.search.model_copy(update=changes)
    with live_progress(err_console) as progress:
        shards = search_shards(
            items,
            lambda: engine_of(policy, settings, progress),
            out,
            shard_size=shard_size,
            prompt=settings.prompt,
            settings=search_settings,
            policy=policy_fingerprint(policy),
            progress=progress,
        )
    infos = [info for shard in shards for info in tree_infos(shard)]
    failed = {info.problem_id: info.reason for info in infos if info.status == "failed"}
    unscored = sum((Counter(info.unscored) for info in infos), Counter[str]())
    if as_json:
        files = [str(shard) for shard in shards]
        say_json({"trees": len(infos), "failed": failed, "unscored": unscored, "files": files})
        return
    say(f"{len(infos)} trees in {len(shards)} files under {out}")
    for reason in dict.fromkeys(failed.values()):
        those = [problem for problem, why in failed.items() if why == reason]
        named = ", ".join(those[:5]) + (", …" if len(those) > 5 else "")
        say(f"{len(those)} of them failed: {reason} ({named})")
    for kind, count in unscored.items():
        say(f"{kind} gave no score for {count} paths.")


@app.command(name="eval")
def evaluate(
    overrides: Overrides = None,
    model: ModelOption = None,
    problems: ProblemsOption = None,
    config: ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for evaluation.parquet, metrics.json; with --strategy, strategies.*."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="An evaluation.parquet of another policy on these problems: compare, paired.")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Compare at equal budgets: any of greedy,majority,best-of-n,weighted,beam,dvts,mcts.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Generated tokens per problem, for instance 256,512,1024,2048.")
    ] = None,
    seconds: SecondsOption = None,
    total_budget: Annotated[
        int | None,
        typer.Option(help="Tokens for all problems together: an allocator against --strategy, which spend it evenly."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a policy, or with --strategy and --budget compare strategies at equal budgets.

    Policy: greedy pass@1 and, with evaluation.samples=N, sampled pass@1, pass@k and majority@k.
    Strategies: accuracy against generated tokens; search.* sets the sampling. The same command continues after a kill.
    """
    from mcts_dpo.evaluation import Evaluation, compare
    from mcts_dpo.evaluation import evaluate as evaluate_policy
    from mcts_dpo.report import evaluation_table

    if seconds is not None and strategy is None:
        raise InputError("--seconds limits strategies; accepted: with --strategy and --budget")
    if strategy is not None or budget is not None or total_budget is not None:
        if against is not None:
            raise InputError("--against compares policies; accepted: --against, or --strategy with --budget")
        _evaluate_strategies(strategy, budget, total_budget, seconds, overrides, model, problems, config, out, as_json)
        return
    settings = stage_config(config, overrides)
    items = load_named_problems(settings, problems, "test")
    other = Evaluation.load(against) if against else None
    policy = policy_named(settings, model)
    with live_progress(err_console) as progress:
        engine = engine_of(policy, settings, progress)
        result = evaluate_policy(
            items,
            engine,
            prompt=settings.prompt,
            settings=settings.evaluation,
            environment=settings.search.environment,
            progress=progress,
        )
    metrics = result.summary()
    if other:
        metrics["against"] = compare(other, result).as_dict()
    if out:
        result.save(out / "evaluation.parquet")
        write_json(out / "metrics.json", metrics)
    if as_json:
        say_json(metrics)
    else:
        out_console.print(evaluation_table(metrics))


def _evaluate_strategies(
    strategy: str | None,
    budget: str | None,
    total_budget: int | None,
    seconds: float | None,
    overrides: list[str] | None,
    model: str | None,
    problems: str | None,
    config: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """`eval --strategy`: compare strategies of one policy at equal budgets."""
    from mcts_dpo.evaluation import evaluate_strategies
    from mcts_dpo.evaluation.strategies import parse_budgets, parse_strategies
    from mcts_dpo.evaluation.total_budget import evaluate_total
    from mcts_dpo.report import plot_strategies, strategies_table
    from mcts_dpo.search import policy_fingerprint

    if total_budget is not None and budget is not None:
        raise InputError("--total-budget replaces --budget; accepted: one of the two")
    if strategy is None or (budget is None and total_budget is None):
        absent, example = ("--budget", "256,512") if budget is None else ("--strategy", "mcts,majority")
        raise InputError(f"no {absent}: accepted: both --strategy and --budget, for instance {absent} {example}")
    strategies = parse_strategies(strategy)
    budgets = [] if budget is None else parse_budgets(budget)
    settings = with_seconds(stage_config(config, overrides), seconds)
    items = load_named_problems(settings, problems, "test")
    policy = policy_named(settings, model)
    settings = with_own_sampling(settings, policy)
    with live_progress(err_console) as progress:
        engine = engine_of(policy, settings, progress)
        how: dict[str, Any] = {
            "prompt": settings.prompt,
            "search": settings.search,
            "settings": settings.evaluation.strategies,
            "folder": out,
            "about": {
                "model": policy_fingerprint(policy),
                "engine": settings.engine.model_dump(include={"kind", "dtype", "context", "served"})
                | settings.engine.model_dump(include={"quantization", "extra"}, exclude_defaults=True),
            },
            "progress": progress,
        }
        bought = None
        if total_budget is None:
            result = evaluate_strategies(items, engine, strategies, budgets, **how)
        else:
            result, bought = evaluate_total(items, engine, strategies, total_budget, **how)
    if out:
        result.save(out)
        plot_strategies(result, out / "strategies.png")
    if as_json:
        say_json({"rows": result.rows(), "sentences": [*result.sentences(), *([bought] if bought else [])]})
    else:
        out_console.print(strategies_table(result))
        if bought:
            say(bought)


@app.command()
def solve(
    question: Annotated[str, typer.Argument(help="The problem, in words.")],
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Generated tokens to spend; settings of search.* that are not given follow from it.", min=1),
    ] = None,
    seconds: SecondsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer one question by search; print the answer, the chosen path and the tree."""
    from mcts_dpo.search import render_tree, tree_answer
    from mcts_dpo.solve import solve_question

    require_encodable(question, "QUESTION")
    settings = with_seconds(stage_config(config, overrides), seconds)
    policy = policy_named(settings, model)
    settings = with_own_sampling(settings, policy)
    with live_progress(err_console) as progress:
        engine = engine_of(policy, settings, progress)
        solution = solve_question(
            question,
            engine,
            prompt=settings.prompt,
            search=settings.search,
            budget=budget,
            settings=settings.evaluation.strategies,
            progress=progress,
        )
    assert solution.forest is not None
    info = solution.forest.trees[0]
    if as_json:
        say_json(
            {
                "answer": solution.answer,
                "weight": solution.weight,
                "solution": solution.text,
                "steps": solution.steps,
                "simulations": info.simulations,
                "sampled_tokens": solution.tokens,
                "nodes": len(solution.forest),
                "status": info.status,
                "undecided": solution.undecided,
                "notes": info.notes,
            }
        )
        return
    out_console.labelled("Answer:", f" {solution.answer if solution.answer is not None else '(none found)'}")
    out_console.literal(solution.text)
    for note in info.notes:
        say(note)
    out_console.print(render_tree(solution.forest, 0, highlight=tree_answer(solution.forest, 0).leaf))


app.add_typer(training.app)
app.add_typer(viewing.app)
app.add_typer(judging.app)
app.add_typer(integrations.app)


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="Import this Python module first; settings can then name what it registers."),
    ] = None,
) -> None:
    context.obj = debug
    for name in with_ or []:
        load_extension(name)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)

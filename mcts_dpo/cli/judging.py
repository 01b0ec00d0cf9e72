"""The commands about judges of steps: judge stored trees again, and measure how good a judge is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcts_dpo.cli.common import ConfigOption, JsonFlag, ProblemsOption, engine_of, stage_config, tree_files
from mcts_dpo.common.console import err_console, live_progress, out_console, say, say_json
from mcts_dpo.common.errors import InputError

if TYPE_CHECKING:
    from mcts_dpo.engines.lazy import LazyEngine
    from mcts_dpo.evaluation.labelled import LabelledProblem
    from mcts_dpo.pipeline.config import StageConfig
    from mcts_dpo.search.rejudge import Judging

app = typer.Typer()

PolicyOption = Annotated[
    str | None, typer.Option("--policy", "--model", "-m", help="The policy, for rewards that ask it or its tokenizer.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting, as search.rewards=… or engine.name=….")]


@app.command()
def rejudge(
    trees: Annotated[list[Path], typer.Argument(help="Tree files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trees, in files of the same names.")],
    setting: SetOption = None,
    problems: ProblemsOption = None,
    verifier: Annotated[str, typer.Option(help="Verify answers with this verifier; needs --problems.")] = "",
    policy: PolicyOption = None,
    config: ConfigOption = None,
    again: Annotated[bool, typer.Option("--again", help="Score with unchanged rewards anew, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge stored trees again: new outcomes, rewards and values, without one generated policy token.

    Rewards with unchanged settings keep their stored scores. `pairs` reads the result as any trees.
    """
    from mcts_dpo.data import load_problems
    from mcts_dpo.search import policy_fingerprint
    from mcts_dpo.search.rejudge import rejudge as rejudge_files
    from verifiers import get_verifier

    files = tree_files(trees)
    settings = judging_settings(config, setting or [])
    if verifier:
        try:
            get_verifier(verifier)
        except ValueError as error:
            raise InputError(f"--verifier: {error}") from None
    with live_progress(err_console) as progress:
        progress("start", 0, 0)
        engine = lazy_engine(policy, stage_config(config, [one for one in setting or [] if _section(one) == "engine"]))
        result = rejudge_files(
            files,
            out,
            settings,
            problems=load_problems(problems) if problems else None,
            engine=engine,
            policy=policy_fingerprint(policy) if policy else "",
            verifier=verifier,
            again=again,
            progress=progress,
        )
    if as_json:
        say_json(
            {
                "trees": result.trees,
                "files": [str(file) for file in result.files],
                "kept": result.kept,
                "scored": sorted(result.scored),
                "changed_outcomes": result.outcomes,
                "changed_values": result.values,
                "unscored": result.unscored,
            }
        )
        return
    say(f"{result.trees} trees judged again; {len(result.files)} files under {out}, {result.kept} there before")
    say(f"New scores: {', '.join(sorted(result.scored)) or 'none'}.")
    say(f"Changed: outcomes of {result.outcomes} solutions, values of {result.values} steps.")
    for kind, count in result.unscored.items():
        say(f"{kind} gave no score for {count} paths.")


def judging_settings(config: Path | None, overrides: Sequence[str]) -> Callable[[Path], Judging]:
    """The settings that judge a file's trees: those stored in it, then those of `config`, then `overrides`.

    Raises InputError for an override of anything but an engine or what another judgement may change.
    """
    from mcts_dpo.common.settings import load_settings, read_yaml
    from mcts_dpo.pipeline.config import StageConfig
    from mcts_dpo.pipeline.migrate import migrated
    from mcts_dpo.search.rejudge import CHANGEABLE, Judging
    from mcts_dpo.search.tree_io import settings_of

    for one in overrides:
        name = one.partition("=")[0]
        if _section(one) != "engine" and tuple(name.split(".")[:2]) not in [("search", each) for each in CHANGEABLE]:
            accepted = ", ".join(f"search.{each}" for each in CHANGEABLE)
            raise InputError(f"--set {name}: the trees are grown already; accepted: {accepted}, engine.*")
    given = (read_yaml(config).get("search") or {}) if config else {}
    changes = {name: given[name] for name in CHANGEABLE if name in given}

    def judging(file: Path) -> Judging:
        stored = migrated(settings_of(file), str(file))
        prompt, search = stored.get("prompt", {}), {"accumulate": "sum"} | stored.get("search", {})
        before = load_settings(StageConfig, {"prompt": prompt, "search": search}, name=str(file))
        after = load_settings(StageConfig, {"search": search | changes}, overrides, name=str(file))
        return Judging(before.search, after.search, before.prompt)

    return judging


def lazy_engine(policy: str | None, config: StageConfig) -> LazyEngine:
    """The engine of `--policy`, which is loaded when it is needed."""
    from mcts_dpo.common.progress import silent
    from mcts_dpo.engines.lazy import LazyEngine

    if policy is None:
        return LazyEngine(None, None, "a reward needs the policy or its tokenizer; accepted: with --policy MODEL")
    from mcts_dpo.models.loading import load_tokenizer

    return LazyEngine(lambda: engine_of(policy, config, silent), load_tokenizer(policy))


def _section(override: str) -> str:
    return override.partition(".")[0]


@app.command(name="judge-eval")
def judge_eval(
    sources: Annotated[
        list[Path], typer.Argument(help="Trees (files or folders), or a file of `question`, `steps`, `first_error`.")
    ],
    setting: SetOption = None,
    problems: ProblemsOption = None,
    policy: PolicyOption = None,
    config: ConfigOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a JSON file and a plot per judge.")
    ] = None,
    truth: Annotated[
        str | None, typer.Option(help="Of trees: the reward that knows which steps are right, such as oracle.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="A step scored below it is judged wrong.", min=0.0, max=1.0)] = 0.5,
    tune: Annotated[
        float,
        typer.Option(help="Choose the threshold of the highest F1 on this share of the problems.", min=0, max=0.9),
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(help="Use only the first so many problems.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure judges of steps: --set 'search.rewards=[self_evaluation, {kind: process, model: DIR}]'.

    AUC over solutions, and over steps with all before right; first errors as ProcessBench scores them; calibration; by
    depth; with intervals over problems; and the cost.
    """
    from mcts_dpo.common.settings import load_settings
    from mcts_dpo.evaluation.judging import evaluate_judge
    from mcts_dpo.pipeline.config import StageConfig
    from mcts_dpo.report.judges import judge_tables, plot_reliability
    from mcts_dpo.rewards.registry import active

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file; accepted: a folder, which need not exist")
    stored = _stored_prompt(sources)
    given = stored | ({} if config is None else stage_config(config, []).model_dump(mode="json", exclude_unset=True))
    accepted = {name: value for name, value in given.items() if name in StageConfig.model_fields}
    settings = load_settings(StageConfig, accepted, setting or [], "judge-eval")
    judges = [one for one in active(settings.search.rewards) if one.kind != "outcome"]
    if not judges:
        raise InputError("no judge: accepted: --set search.rewards=[KIND, …], such as [self_evaluation]")
    results = []
    with live_progress(err_console) as progress:
        progress("load", 0, 0)
        engine = lazy_engine(policy, settings)
        labelled, labels = _labelled(sources, bool(stored), problems, settings, engine, truth, limit)
        for judge in judges:
            result = evaluate_judge(
                labelled,
                judge,
                engine,
                settings.prompt,
                data=", ".join(map(str, sources)),
                labels=labels,
                threshold=threshold,
                tune=tune,
                seed=settings.search.seed,
                progress=progress,
            )
            results.append(result)
            if out is not None:
                name = re.sub(r"[^\w.-]+", "-", f"{sources[0].stem}-{result.name}").strip("-")
                result.save(out / f"{name}.json")
                plot_reliability(result, out / f"{name}.png")
    if as_json:
        say_json([asdict(result) for result in results])
        return
    for result in results:
        out_console.print(judge_tables(result))


def _stored_prompt(sources: Sequence[Path]) -> dict[str, Any]:
    """The section `prompt` of the trees among the sources; {} for files of labelled steps."""
    from mcts_dpo.pipeline.migrate import migrated
    from mcts_dpo.search.tree_io import is_forest, settings_of

    if not any(source.is_dir() or is_forest(source) for source in sources):
        return {}
    first = tree_files(sources)[0]
    return {"prompt": migrated(settings_of(first), str(first)).get("prompt", {})}


def _labelled(
    sources: Sequence[Path],
    trees: bool,
    problems: str | None,
    settings: StageConfig,
    engine: LazyEngine,
    truth: str | None,
    limit: int | None,
) -> tuple[list[LabelledProblem], str]:
    """The labelled problems of the sources, and how they are labelled."""
    from mcts_dpo.common.settings import load_settings
    from mcts_dpo.data import load_problems
    from mcts_dpo.evaluation.judging import with_truth
    from mcts_dpo.evaluation.labelled import FEWEST, labelled_steps, labelled_trees
    from mcts_dpo.search import SearchSettings

    if not trees:
        if truth is not None:
            raise InputError("--truth: of trees only; accepted without it: files whose rows have `first_error`")
        tokenizer = engine.tokenizer if engine.has_policy else None
        found = [one for file in sources for one in labelled_steps(file, settings.prompt, tokenizer)]
        return found[:limit], "first_error of each row"
    if problems is None:
        raise InputError("no problems: judges read the questions of trees; accepted: --problems FILE")
    known = {one.id: one for one in load_problems(problems)}
    found = [one for file in tree_files(sources) for one in labelled_trees(file, known, settings.prompt)][:limit]
    if truth is None:
        return found, f"outcomes; before the end by samples below (wrong: none right of {FEWEST} or more)"
    entry = load_settings(SearchSettings, {"rewards": [truth]}, [], "--truth").rewards[0]
    return with_truth(found, entry, engine, settings.prompt), f"truth: {truth}"

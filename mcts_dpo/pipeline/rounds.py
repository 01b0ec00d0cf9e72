"""The self-training loop. Only this module knows the order of the stages.

In: a `RunConfig` and a directory. Out: that directory, filled:

    config.yaml  environment.json  metrics.jsonl  timings.jsonl  (changes.jsonl)
    baseline/    evaluation.parquet  metrics.json
    round-000/   trees/shard-0000.parquet …  pairs.parquet  siblings.parquet  solutions.parquet
                 steps.parquet
                 training/log.jsonl  policy/  evaluation.parquet  metrics.json

A stage is finished when its manifest under `stages/` says so, and a search shard when its file exists. A training keeps
its live log and its checkpoint in `training/unfinished/`. Damaged files are moved to the folder `damaged/` of their
round, and their stage runs again. Every file appears whole, so the process can be killed at any moment. The same call
then continues, also in the middle of a training, and repeats no finished stage or shard. It ends with the same bytes as
an undisturbed run on the same machine, except for files with clock times: `timings.jsonl` and those of TensorBoard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import explained, read_json, seed_from, sweep, whole, write_json
from mcts_dpo.common.progress import Progress, part_of, silent
from mcts_dpo.data import Problem, load_problems, overlap, require_answers, without_any_answer
from mcts_dpo.evaluation import Evaluation, compare, evaluate
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.judges import search_rewards
from mcts_dpo.pipeline.run_directory import claim, is_sound, locked, set_aside
from mcts_dpo.pipeline.stages import LOCAL, Executors, StageRunner
from mcts_dpo.pipeline.trainings import TRAINED, judge_figures, judges_for, read_rows, train_judge, train_policy
from mcts_dpo.preferences import Pairs, Siblings, Solutions, Steps, save_tables, tables_of
from mcts_dpo.search import counts_of_shard, policy_fingerprint, search_statistics
from mcts_dpo.search.tree_io import made_with
from mcts_dpo.training import check_launch
from mcts_dpo.training.memory import out_of_memory

Result = TypeVar("Result")
TABLES = (Pairs, Siblings, Solutions, Steps)
"""What a round extracts from its trees."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a finished run.

    directory: the run directory.
    baseline:  metrics of the starting policy (None if `baseline: false`).
    rounds:    metrics of each round, in order (see `round-*/metrics.json`).
    policy:    the last accepted policy: a Hugging Face directory, or the starting model's name.
    """

    directory: Path
    baseline: dict[str, Any] | None
    rounds: tuple[dict[str, Any], ...]
    policy: str


def run(
    config: RunConfig,
    directory: Path,
    *,
    executors: Executors = LOCAL,
    force: bool = False,
    progress: Progress = silent,
) -> RunResult:
    """Run, or continue, the self-training loop of `config` in `directory`.

    executors: the functions that search and read shards.
    force:   continue with `config` although the directory belongs to another one. Finished stages stay as they are,
             unfinished ones start again, and the change is recorded in `changes.jsonl`.

    Raises InputError if the directory belongs to another config (with the differences), is in use by another process,
    or cannot be written (a full disk, no permission), and if there are too few problems for the rounds.
    """
    directory = Path(directory)
    with explained(directory, lambda: "finished stages are kept"):
        return _run(config, directory, executors, force, progress)


def _run(config: RunConfig, directory: Path, executors: Executors, force: bool, progress: Progress) -> RunResult:
    check_launch(config.launch)
    problems = _load(config)
    if not (directory / "config.yaml").exists():
        # If the model is missing, no directory may be left: it would refuse the corrected command.
        load_tokenizer(config.model)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        claim(config, directory, force)  # a refusal touches nothing
        sweep(directory)
        stages = StageRunner(config, directory, executors, progress)
        baseline = _evaluate_baseline(stages, problems) if config.baseline else None
        policy = config.model
        rounds: list[dict[str, Any]] = []
        for index in range(config.rounds):
            metrics = _round(stages, problems, index, policy)
            policy = str(directory / metrics["policy"]) if metrics["accepted"] else policy
            rounds.append(metrics)
            lines = [json.dumps(line, sort_keys=True) for line in [*([baseline] if baseline else []), *rounds]]
            with whole(directory / "metrics.jsonl") as scratch:
                scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return RunResult(directory, baseline, tuple(rounds), policy)


@dataclass(frozen=True, slots=True)
class _Problems:
    """The problems of a run. No two rounds share a problem, and no training problem is a test problem.

    left_out: training problems that were dropped because the test set asks the same question.
    """

    rounds: tuple[tuple[Problem, ...], ...]
    development: tuple[Problem, ...]
    test: tuple[Problem, ...]
    left_out: int


def _load(config: RunConfig) -> _Problems:
    test = load_problems(config.test)
    train_problems = load_problems(config.train)
    contaminated = {train_id for train_id, _ in overlap(train_problems, test)}
    usable = [problem for problem in train_problems if problem.id not in contaminated]
    needed = config.rounds * config.problems_per_round + config.development
    if len(usable) < needed:
        raise InputError(
            f"{config.train.source}: {len(usable)} usable training problems, but {config.rounds} rounds × "
            f"{config.problems_per_round} + {config.development} for development need {needed}; "
            "lower rounds or problems_per_round, or give more problems"
        )
    size = config.problems_per_round
    slices = tuple(tuple(usable[index * size : (index + 1) * size]) for index in range(config.rounds))
    # The development problems come from the end, so that raising `rounds` later moves no slice.
    development = tuple(usable[len(usable) - config.development :]) if config.development else ()
    _check_answers(config, [problem for one in slices for problem in one], development, test)
    return _Problems(slices, development, tuple(test), len(contaminated))


def _check_answers(
    config: RunConfig, searched: Sequence[Problem], development: Sequence[Problem], test: Sequence[Problem]
) -> None:
    """Check the reference answers before the first round.

    Raises InputError if a problem that measures policies has no reference answer. Warns if no answer of a set can be
    read: no solution would count as right.
    """
    require_answers(test, config.test.source)
    require_answers(development, config.train.source)
    for source, problems, so in (
        (config.train.source, searched, "only self-evaluation and a value model can tell good solutions from bad ones"),
        (config.test.source, test, "no solution can be right"),
    ):
        found = without_any_answer(problems)
        if found:
            logger.warning("%s: %s; %s", source, found, so)


def _evaluate_baseline(stages: StageRunner, problems: _Problems) -> dict[str, Any]:
    place = stages.directory / "baseline"
    target = place / "metrics.json"

    def work() -> None:
        evaluation = _evaluate(stages, stages.config.model, problems.test, place / "evaluation.parquet")
        write_json(target, {"round": -1, "policy": "", "test": evaluation.summary()})

    stages.stage(place, "evaluate", lambda: [target, place / "evaluation.parquet"], work)
    metrics: dict[str, Any] = read_json(target)
    return metrics


def _round(stages: StageRunner, problems: _Problems, index: int, policy: str) -> dict[str, Any]:
    """One round: search → pairs → train → evaluate. Returns its metrics.

    Files of a finished round that later rounds read are verified. If one is damaged, the stages are checked one by one,
    and those with damaged files run again.
    """
    place = stages.directory / f"round-{index:03d}"
    target = place / "metrics.json"
    judges = [judge for judge in stages.config.judges if judge.kind in TRAINED]
    complete = all((place / "stages" / f"{judge.kind}.json").exists() for judge in judges)
    if is_sound(place) and complete:
        finished: dict[str, Any] = read_json(target)
        return finished
    slice_ = problems.rounds[index]
    shards = _search(stages, place, index, slice_, policy)
    stages.stage(
        place,
        "pairs",
        lambda: [place / f"{table.what}.parquet" for table in TABLES],
        lambda: _extract(stages, place, shards),
    )
    stages.stage(place, "train", lambda: _trained_files(place), lambda: train_policy(stages, place, index, policy))
    for judge in judges:
        stages.stage(
            place,
            judge.kind,
            partial(_files_below, place / judge.kind),
            partial(train_judge, stages, place, index, policy, judge),
        )
    stages.stage(
        place,
        "evaluate",
        lambda: [target, *_existing(place, "evaluation.parquet", "development.parquet")],
        lambda: write_json(target, _measure(stages, place, index, policy, shards, problems)),
    )
    metrics: dict[str, Any] = read_json(target)
    return metrics


def _search(stages: StageRunner, place: Path, index: int, problems: Sequence[Problem], policy: str) -> list[Path]:
    """Search the round's trees, shard by shard. A shard whose file exists is not searched again."""
    config = stages.config
    rewards = search_rewards(config.search.rewards, config.judges, judges_for(stages, index, policy))
    changes = {"seed": seed_from("search", config.seed, index), "rewards": rewards}
    settings = config.search.model_copy(update=changes)
    folder = place / "trees"

    def work() -> None:
        _set_foreign_trees_aside(place, folder, policy)
        told = part_of(stages.progress, prefix=f"round {index + 1}: ")
        with _memory_explained(config):
            stages.executors.search(problems, policy, lambda: stages.engine_for(policy), folder, config, settings, told)

    stages.stage(place, "search", lambda: sorted(folder.glob("*.parquet")), work)
    return sorted(folder.glob("*.parquet"))


def _set_foreign_trees_aside(place: Path, folder: Path, policy: str) -> None:
    """Set aside shards of an unfinished search that cannot be read, or that another policy has searched."""
    for shard in sorted(folder.glob("*.parquet")):
        try:
            known = made_with(shard).get("policy", "")
            why = "the trees of another policy" if known and known != policy_fingerprint(policy) else ""
        except InputError as error:
            why = str(error).removeprefix(f"{shard}: ")
        if why:
            logger.warning("%s: %s; set aside as %s, and searched again", shard, why, set_aside(shard, place))


def _extract(stages: StageRunner, place: Path, shards: Sequence[Path]) -> None:
    of_shard = partial(tables_of, settings=stages.config.preferences)
    save_tables(stages.executors.each(of_shard, shards), place)


def _measure(
    stages: StageRunner, place: Path, index: int, policy: str, shards: Sequence[Path], problems: _Problems
) -> dict[str, Any]:
    """Evaluate the round's policy and collect the round's figures. None of them depends on the clock."""
    trained = (place / "policy").exists()
    candidate = str(place / "policy") if trained else policy
    evaluation = _evaluate(stages, candidate, problems.test, place / "evaluation.parquet")
    metrics: dict[str, Any] = {
        "round": index,
        "policy": f"{place.name}/policy",
        "accepted": trained,
        "search": search_statistics(stages.executors.each(counts_of_shard, shards)),
        **{file.stem: read_rows(file) for file in _existing(place, *(f"{table.what}.parquet" for table in TABLES))},
        "test": evaluation.summary(),
        "train_problems_left_out": problems.left_out,
    }
    summary = place / "training" / "summary.json"
    if summary.exists():
        metrics["training"] = read_json(summary)
    if figures := judge_figures(stages, place):
        metrics["judges"] = figures
    baseline = stages.directory / "baseline" / "evaluation.parquet"
    if baseline.exists():
        metrics["against_baseline"] = compare(Evaluation.load(baseline), evaluation).as_dict()
    if problems.development and trained:
        before = _development(stages, index, policy, problems)
        after = _evaluate(stages, candidate, problems.development, place / "development.parquet")
        metrics["development"] = compare(before, after).as_dict()
        worse = metrics["development"]["difference"]["value"] < 0 and metrics["development"]["p_value"] < 0.05
        metrics["accepted"] = not worse
    return metrics


def _development(stages: StageRunner, index: int, policy: str, problems: _Problems) -> Evaluation:
    """The development accuracy of the round's starting policy: from the last accepted round, or measured now."""
    for earlier in reversed(range(index)):
        place = stages.directory / f"round-{earlier:03d}"
        if policy == str(place / "policy"):
            return Evaluation.load(place / "development.parquet")
    start = stages.directory / "baseline" / "development.parquet"
    try:
        return Evaluation.load(start)
    except InputError as error:
        if start.exists():
            logger.warning("%s; set aside as %s, and measured again", error, set_aside(start, start.parent))
        return _evaluate(stages, policy, problems.development, start)


def _evaluate(stages: StageRunner, policy: str, problems: Sequence[Problem], target: Path) -> Evaluation:
    config = stages.config
    settings = config.evaluation.model_copy(update={"seed": seed_from("evaluation", config.seed)})
    with _memory_explained(config):
        engine = stages.engine_for(policy)
        evaluation = evaluate(
            problems,
            engine,
            prompt=config.prompt,
            settings=settings,
            environment=config.search.environment,
            progress=stages.progress,
        )
    evaluation.save(target)
    return evaluation


@contextmanager
def _memory_explained(config: RunConfig) -> Iterator[None]:
    """Turn an engine's lack of memory into an InputError that names the settings to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"engine.slots: memory does not suffice for an engine of {config.engine.slots} sequences at once "
            "(accepted: fewer, or engine.dtype=bfloat16, with --force to continue so; finished work is kept)"
        ) from error


def _existing(place: Path, *names: str) -> list[Path]:
    return [place / name for name in names if (place / name).exists()]


def _trained_files(place: Path) -> list[Path]:
    names = ("log.jsonl", "summary.json", "skipped.json", "questions.parquet")
    return [*_files_below(place / "policy"), *_existing(place / "training", *names)]


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []

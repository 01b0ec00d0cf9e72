"""The demonstration: a tiny policy that was taught wrong habits improves itself by searching, in about five minutes.

In: a directory and a seed. Out: that directory as an ordinary run directory, plus the warm start, the problems,
`summary.json` and the trees of one problem before and after. The run itself is `rounds.run` with ordinary settings.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, whole, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem, ProblemSettings, load_problems, overlap, save_problems
from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.evaluation import Evaluation, EvaluationSettings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import PreferenceSettings
from mcts_dpo.report import load_run, summary_text, write_report
from mcts_dpo.search import Forest, SearchSettings, render_text, search_problems
from mcts_dpo.toy.policy import toy_prompt, warm_start
from mcts_dpo.toy.world import make_problems
from mcts_dpo.training import DataSettings, OptimiserSettings, TrainingSettings, objective_settings

Objective = Literal["step_dpo", "rft", "step_rft"]

ROUNDS = 3
PROBLEMS_PER_ROUND = 400
TEST_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What the demonstration found; `summary.json` holds it.

    accuracy_before, accuracy_after: greedy accuracy on the test problems, before the first round, after the last.
    self_evaluation_auc:             of the warm start: P(yes) against correctness; None if all were right or wrong.
    seconds:                         wall-clock seconds of all stages together.
    """

    accuracy_before: float
    accuracy_after: float
    rounds: int
    seconds: float
    seed: int
    self_evaluation_auc: float | None


def demo_config(
    start: Path,
    problems: Path,
    *,
    seed: int,
    objective: Objective = "step_dpo",
    rounds: int = ROUNDS,
    problems_per_round: int = PROBLEMS_PER_ROUND,
) -> RunConfig:
    """The demonstration's settings: `start` is the warm policy, `problems` the folder that `prepare` filled."""
    return RunConfig(
        model=str(start),
        train=ProblemSettings(source=str(problems / "train.jsonl")),
        test=ProblemSettings(source=str(problems / "test.jsonl")),
        prompt=toy_prompt(),
        # The policy is so small that a second thread would only wait for the first.
        engine=EngineSettings(slots=512, dtype="float32", threads=1),
        search=SearchSettings(expand="rollout", simulations=8, children=4, temperature=0.8, c_puct=1.0, max_tokens=96),
        preferences=PreferenceSettings(select="best_path", min_gap=0.5),
        training=TrainingSettings(
            objective=objective_settings(objective),
            optimiser=OptimiserSettings(lr=5e-5, schedule="linear"),
            data=DataSettings(epochs=2, batch_size=32),
            dtype="float32",
            threads=1,
        ),
        evaluation=EvaluationSettings(max_tokens=96, confidence=True, chunk=512),
        rounds=rounds,
        problems_per_round=problems_per_round,
        shard_size=100,
        seed=seed,
    )


def prepare(
    directory: Path,
    *,
    seed: int,
    train_problems: int = ROUNDS * PROBLEMS_PER_ROUND,
    test_problems: int = TEST_PROBLEMS,
    progress: Progress = silent,
) -> tuple[Path, Path]:
    """Make the warm start and the problems in `directory` unless they exist. Returns both paths.

    No training problem is a test problem, which is checked. The demonstrations of the warm start show none of them.
    """
    start, problems = directory / "start", directory / "problems"
    if not start.exists():
        warm_start(start, seed=seed, progress=progress)
    if not problems.exists():
        test = make_problems(test_problems, seed=2 * seed + 1)
        train = make_problems(train_problems, seed=2 * seed, exclude={problem.question for problem in test})
        shared = overlap(train, test)
        if shared:
            raise RuntimeError(f"{len(shared)} training problems are test problems, e.g. {shared[0]}")
        with whole(problems) as scratch:
            save_problems(scratch / "train.jsonl", train)
            save_problems(scratch / "test.jsonl", test)
    return start, problems


def demo(
    directory: Path,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
    problems_per_round: int = PROBLEMS_PER_ROUND,
    test_problems: int = TEST_PROBLEMS,
    progress: Progress = silent,
) -> DemoSummary:
    """Run, or continue, the demonstration in `directory`."""
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: a file; accepted: a run directory, new or of this command")
    began = time.monotonic()
    start, problems = prepare(
        directory,
        seed=seed,
        train_problems=rounds * problems_per_round,
        test_problems=test_problems,
        progress=progress,
    )
    preparation = directory / "preparation.json"
    if not preparation.exists():
        write_json(preparation, {"seconds": round(time.monotonic() - began, 3)})
    config = demo_config(start, problems, seed=seed, rounds=rounds, problems_per_round=problems_per_round)
    result = run(config, directory, progress=progress)
    record = load_run(directory)
    write_report(record, progress)
    _draw_trees(config, directory, result.policy)
    assert result.baseline is not None
    seconds = read_json(preparation)["seconds"] + sum(line["seconds"] for line in record.timings)
    summary = DemoSummary(
        accuracy_before=result.baseline["test"]["greedy"]["value"],
        accuracy_after=result.rounds[-1]["test"]["greedy"]["value"],
        rounds=len(result.rounds),
        seconds=round(seconds, 1),
        seed=seed,
        self_evaluation_auc=result.baseline["test"]["self_evaluation_auc"],
    )
    write_json(directory / "summary.json", asdict(summary))
    return summary


def show(directory: Path, summary: DemoSummary, console: Console) -> None:
    """Print the result, with intervals."""
    console.print(
        "A tiny Llama was taught to solve arithmetic stories, with wrong habits on purpose: it often adds"
        " where it should subtract or multiply. Nobody shows it better: it only learns, from its own"
        " search trees, which of its steps lead to the right final number.\n"
    )
    console.print(summary_text(load_run(directory)))
    auc = summary.self_evaluation_auc
    console.print(
        f"Greedy accuracy {summary.accuracy_before:.3f} → {summary.accuracy_after:.3f} in {summary.rounds} rounds, "
        f"{summary.seconds:.0f} s; self-evaluation of the start: AUC {'n/a' if auc is None else f'{auc:.2f}'}.\n"
    )
    for name in ("before", "after"):
        console.print(Text((directory / f"tree-{name}.txt").read_text(encoding="utf-8")))
    console.print(f"Files: {directory}/summary.json, report.html, *.png, round-*/trees, pairs.parquet, policy")


def _draw_trees(config: RunConfig, directory: Path, policy: str) -> None:
    """The trees of both policies for one test problem that only the last policy solves."""
    if (directory / "tree-after.txt").exists():
        return
    before = Evaluation.load(directory / "baseline" / "evaluation.parquet")
    after = Evaluation.load(directory / f"round-{config.rounds - 1:03d}" / "evaluation.parquet")
    pairs = list(zip(before.outcomes, after.outcomes, strict=True))
    chosen = next((old.problem_id for old, new in pairs if new.correct and not old.correct), pairs[0][0].problem_id)
    problem = next(problem for problem in load_problems(config.test) if problem.id == chosen)
    for name, model in (("before", config.model), ("after", policy)):
        forest = _small_tree(config, problem, model)
        text = f"The same problem, {name}: {problem.question}\n{render_text(forest, 0, width=110)}"
        with whole(directory / f"tree-{name}.txt") as scratch:
            scratch.write_text(text, encoding="utf-8")


def _small_tree(config: RunConfig, problem: Problem, model: str) -> Forest:
    settings = config.search.model_copy(update={"simulations": 4, "children": 3})
    return search_problems(
        [problem], load_engine(model, settings=config.engine), prompt=config.prompt, settings=settings
    )

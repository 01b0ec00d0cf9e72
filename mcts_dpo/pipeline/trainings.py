"""The trainings of a round: its policy, and the judges that the next round's search asks.

In: the round's tables. Out: `policy/`, `value/`, `process/`, with their logs in `training/`. A training runs in this
process, or in those of `launch`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, seed_from, write_json
from mcts_dpo.common.progress import part_of
from mcts_dpo.pipeline.judges import JudgeSettings, judge_of
from mcts_dpo.pipeline.run_directory import set_aside
from mcts_dpo.pipeline.stages import StageRunner
from mcts_dpo.training import (
    TrainingSettings,
    TrainingSummary,
    questions_of,
    table_of,
    train,
    train_launched,
    train_process_reward,
    train_value,
)
from mcts_dpo.training.data.judgements import NoQuestionsError
from mcts_dpo.training.launching import RECORDS, What

logger = logging.getLogger(__name__)
TRAINED: dict[str, tuple[What, str]] = {
    "value": ("value", "siblings.parquet"),
    "process": ("process_reward", "steps.parquet"),
}
"""The judges that have a stage of their own, by kind: what is trained, and the table that it learns from."""


def train_policy(stages: StageRunner, place: Path, index: int, policy: str) -> None:
    """Train `policy` on the round's data. Without data, write a note instead of a policy."""
    config = stages.config
    data, questions = _training_table(stages, place, index), None
    settings = config.training.model_copy(update={"seed": seed_from("training", config.seed, index) % 2**32})
    if not read_rows(data):
        write_json(place / "training" / "skipped.json", {"reason": f"{data.name} has no rows: nothing to learn from"})
        return
    folder = place / "training"
    if judge_of(config.judges, "self_evaluation"):
        questions = _questions(stages, place, policy, settings)
    summary = _trained(
        stages, "policy", policy, data, place / "policy", settings, folder, f"round {index + 1}: ", questions
    )
    write_json(folder / "summary.json", summary.as_dict())


def _questions(stages: StageRunner, place: Path, policy: str, settings: TrainingSettings) -> Path | None:
    """Write the questions about the round's steps that its training asks. None if the steps allow none."""
    path = place / "training" / "questions.parquet"
    try:
        questions_of(policy, steps_of(place), settings, stages.config.prompt).save(path)
    except NoQuestionsError as error:
        logger.warning("%s: the policy is not taught to judge: %s", place, error)
        return None
    return path


def steps_of(place: Path) -> Path:
    """The table of a round's labelled steps. Raises InputError if an earlier edition made the round's tables."""
    path, pairs = place / "steps.parquet", place / "stages" / "pairs.json"
    if not path.exists():
        raise InputError(f"{path}: is missing: an earlier edition made the tables; delete {pairs} to make them again")
    return path


def train_judge(stages: StageRunner, place: Path, index: int, policy: str, judge: JudgeSettings) -> None:
    """Train a judge of the round on its new policy. Without data, nothing is written.

    policy: the one that the round started from. A process reward model takes its trunk if the round trained no policy.
    """
    what, name = TRAINED[judge.kind]
    data, trunk = steps_of(place) if judge.kind == "process" else place / name, place / "policy"
    if not read_rows(data) or (judge.kind == "value" and not trunk.exists()):
        return
    given: TrainingSettings = getattr(judge, "training")  # noqa: B009  judges with a stage have it
    settings = given.model_copy(update={"seed": seed_from(judge.kind, stages.config.seed, index) % 2**32})
    folder, prefix = place / "training" / judge.kind, f"round {index + 1}, {judge.kind}: "
    start = str(trunk) if trunk.exists() else policy
    _trained(stages, what, start, data, place / judge.kind, settings, folder, prefix)


def judges_for(stages: StageRunner, index: int, policy: str) -> dict[str, Path]:
    """The trained judges that round `index`, which searches with `policy`, asks: their directories, by kind.

    A value model belongs to the policy whose trunk it reads. A process reward model is the latest one. The policy
    judges itself once a round has taught it to.
    """
    found: dict[str, Path] = {}
    own = [Path(policy).parent] if stages.directory in Path(policy).parents else []
    for judge in stages.config.judges:
        earlier = [stages.directory / f"round-{number:03d}" for number in reversed(range(index))]
        places = earlier if judge.kind == "process" else own
        name = "training/questions.parquet" if judge.kind == "self_evaluation" else judge.kind
        there = [place / name for place in places if (place / name).exists()]
        if there:
            found[judge.kind] = there[0]
    return found


def judge_figures(stages: StageRunner, place: Path) -> dict[str, Any]:
    """The last figures of the trainings of the round's judges, by kind."""
    kinds = [judge.kind for judge in stages.config.judges if judge.kind in TRAINED and (place / judge.kind).exists()]
    records = {kind: read_json(place / kind / RECORDS[TRAINED[kind][0]]) for kind in kinds}
    return {kind: record["summary"]["last"] for kind, record in records.items()}


def _trained(
    stages: StageRunner,
    what: What,
    policy: str,
    data: Path,
    out: Path,
    settings: TrainingSettings,
    folder: Path,
    prefix: str,
    questions: Path | None = None,
) -> TrainingSummary:
    """A training, in this process or in those of `config.launch`. It writes to `out` and into `folder`."""
    launch = stages.config.launch
    if out.exists() and not (out / RECORDS[what]).exists():
        set_aside(out, out.parent)  # the remains of a damaged one
    options: dict[str, Any] = {
        "log": folder / "log.jsonl",
        "unfinished_at": folder / "unfinished",
        "board": folder / "tensorboard",
        "progress": part_of(stages.progress, prefix=prefix),
    }
    if launch.outside:
        stages.let_go()
        return train_launched(what, policy, data, out, settings, launch, questions=questions, **options)
    if what == "policy":
        return train(policy, data, out, settings, questions=questions, **options)
    function = {"value": train_value, "process_reward": train_process_reward}[what]
    return function(policy, data, out, settings, **options)


def _training_table(stages: StageRunner, place: Path, index: int) -> Path:
    """The table that a round trains on: its own, after those of earlier rounds with `replay`."""
    table: Any = table_of(stages.config.training.objective.kind)
    name = f"{table.what}.parquet"
    rounds = [
        stages.directory / f"round-{earlier:03d}" for earlier in range(max(0, index - stages.config.replay), index)
    ]
    if not rounds:
        return place / name
    mixed = place / "training" / name
    table.concatenate([table.load(folder / name) for folder in (*rounds, place)]).save(mixed)
    return mixed


def read_rows(path: Path) -> int:
    """The number of rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)

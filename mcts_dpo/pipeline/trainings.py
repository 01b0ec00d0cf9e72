"""The trainings of a round: its policy, and the judges that the next round's search asks.

In: the round's tables. Out: `policy/`, `value/`, `process/`, with their logs in `training/`. A training runs in this
process, or in those of `launch`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, seed_from, write_json
from mcts_dpo.common.progress import part_of
from mcts_dpo.pipeline.judges import JudgeSettings
from mcts_dpo.pipeline.run_directory import set_aside
from mcts_dpo.pipeline.stages import StageRunner
from mcts_dpo.training import (
    TrainingSettings,
    TrainingSummary,
    table_of,
    train,
    train_launched,
    train_process_reward,
    train_value,
)
from mcts_dpo.training.launching import RECORDS, What

TRAINED: dict[str, tuple[What, str]] = {
    "value": ("value", "siblings.parquet"),
    "process": ("process_reward", "steps.parquet"),
}
"""The judges that have a stage of their own, by kind: what is trained, and the table that it learns from."""


def train_policy(stages: StageRunner, place: Path, index: int, policy: str) -> None:
    """Train `policy` on the round's data. Without data, write a note instead of a policy."""
    config = stages.config
    data = _training_table(stages, place, index)
    settings = config.training.model_copy(update={"seed": seed_from("training", config.seed, index) % 2**32})
    if not read_rows(data):
        write_json(place / "training" / "skipped.json", {"reason": f"{data.name} has no rows: nothing to learn from"})
        return
    folder = place / "training"
    summary = _trained(stages, "policy", policy, data, place / "policy", settings, folder, f"round {index + 1}: ")
    write_json(folder / "summary.json", summary.as_dict())


def train_judge(stages: StageRunner, place: Path, index: int, policy: str, judge: JudgeSettings) -> None:
    """Train a judge of the round on its new policy. Without data, nothing is written.

    policy: the one that the round started from. A process reward model takes its trunk if the round trained no policy.
    """
    what, name = TRAINED[judge.kind]
    data, trunk = place / name, place / "policy"
    if not data.exists():
        pairs = place / "stages" / "pairs.json"
        raise InputError(f"{data}: is missing: an earlier edition made the tables; delete {pairs} to make them again")
    if not read_rows(data) or (judge.kind == "value" and not trunk.exists()):
        return
    given: TrainingSettings = getattr(judge, "training")  # noqa: B009  judges with a stage have it
    settings = given.model_copy(update={"seed": seed_from(judge.kind, stages.config.seed, index) % 2**32})
    folder, prefix = place / "training" / judge.kind, f"round {index + 1}, {judge.kind}: "
    start = str(trunk) if trunk.exists() else policy
    _trained(stages, what, start, data, place / judge.kind, settings, folder, prefix)


def judges_for(stages: StageRunner, index: int, policy: str) -> dict[str, Path]:
    """The trained judges that round `index`, which searches with `policy`, asks: their directories, by kind.

    A value model belongs to the policy whose trunk it reads. A process reward model is the latest one.
    """
    found: dict[str, Path] = {}
    for judge in stages.config.judges:
        if judge.kind == "value":
            places = [Path(policy).parent] if stages.directory in Path(policy).parents else []
        else:
            places = [stages.directory / f"round-{earlier:03d}" for earlier in reversed(range(index))]
        there = [place / judge.kind for place in places if (place / judge.kind).exists()]
        if there:
            found[judge.kind] = there[0]
    return found


def judge_figures(stages: StageRunner, place: Path) -> dict[str, Any]:
    """The last figures of the trainings of the round's judges, by kind."""
    kinds = [judge.kind for judge in stages.config.judges if (place / judge.kind).exists()]
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
) -> TrainingSummary:
    """A training, in this process or in those of `config.launch`. It writes to `out` and into `folder`."""
    launch = stages.config.launch
    if out.exists() and not (out / RECORDS[what]).exists():
        set_aside(out, out.parent)  # the remains of a damaged one
    places = {"log": folder / "log.jsonl", "unfinished_at": folder / "unfinished", "board": folder / "tensorboard"}
    progress = part_of(stages.progress, prefix=prefix)
    if launch.outside:
        stages.let_go()
        return train_launched(what, policy, data, out, settings, launch, **places, progress=progress)
    function = {"policy": train, "value": train_value, "process_reward": train_process_reward}[what]
    return function(policy, data, out, settings, **places, progress=progress)


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

"""A run whose training is done by two processes under torchrun: the policy of one, whoever is killed on the way."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil
import pytest
from safetensors.torch import load_file

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json
from mcts_dpo.common.settings import changed, dump_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.training import LaunchSettings, TrainingSettings, TrainingSummary, train_launched
from mcts_dpo.training.launching import LaunchedError
from tests.conftest import ROOT, ToyWorld
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy


@pytest.fixture(scope="module")
def config(toy_world: ToyWorld) -> RunConfig:
    """One round whose training is long enough to be met."""
    training = changed(toy_world.config.training, {"data.epochs": 30, "data.batch_size": 4, "checkpoint.updates": 2})
    return toy_world.config.model_copy(
        update={"rounds": 1, "baseline": False, "problems_per_round": 16, "training": training}
    )


def until(condition: Callable[[], object], process: subprocess.Popen[str], said: Path) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.002)


def trainers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, without the torchrun that started them."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "mcts_dpo.training.launched" in child.cmdline()[1:4]]


def test_killed_runs_and_killed_workers_end_in_the_policy_of_one_process(config: RunConfig, tmp_path: Path) -> None:
    """SIGKILL to the run, SIGKILL to one of its processes, each in the middle of the training."""
    run(config, tmp_path / "one")
    launch = LaunchSettings(processes=2)
    (tmp_path / "run.yaml").write_text(dump_settings(config.model_copy(update={"launch": launch})), encoding="utf-8")
    arguments = ["run", "--config", tmp_path / "run.yaml", "--out", tmp_path / "two", "--json"]
    place = tmp_path / "two" / "round-000"
    checkpoint = place / "training" / "unfinished" / "checkpoint.safetensors"
    for kill in ("run", "worker"):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        said = tmp_path / f"said-{kill}"
        with said.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mcts_dpo", *map(str, arguments)],
                stdout=output,
                stderr=output,
                text=True,
            )
        until(lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before, process, said)
        busy = trainers(process)
        assert len(busy) == 2
        if kill == "worker":
            os.kill(busy[1].pid, signal.SIGKILL)
            assert process.wait(900) == 0, said.read_text()
            assert "a process failed; restart 1 continues from the last checkpoint" in said.read_text()
            assert "Traceback" not in said.read_text()
            continue
        process.kill()
        assert process.wait(600) == -signal.SIGKILL, said.read_text()
        _, left = psutil.wait_procs(busy, timeout=300)
        assert not left, "they end with the run"
    one = load_file(tmp_path / "one" / "round-000" / "policy" / "model.safetensors")
    two = load_file(place / "policy" / "model.safetensors")
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-6, name
    names = [
        {str(path.relative_to(where)) for path in where.rglob("*") if path.parent.name != "tensorboard"}
        for where in (tmp_path / "one" / "round-000", place)
    ]
    assert names[0] == names[1], "nothing else is left"
    first, second = (read_json(tmp_path / name / "round-000" / "training" / "summary.json") for name in ("one", "two"))
    assert first["tokens"] == second["tokens"]
    assert set(read_json(place / "stages" / "train.json")["files"]) == set(
        read_json(tmp_path / "one" / "round-000" / "stages" / "train.json")["files"]
    )


BROKEN = """
from typing import Literal

from mcts_dpo.training import LossSettings, Objective, register_objective

class BrokenSettings(LossSettings):
    kind: Literal["broken"] = "broken"

def losses(steps, settings):
    raise ValueError("the loss is broken\\nand more lines")

register_objective(Objective(BrokenSettings, "pairs", losses, needs_reference=True))
"""


def test_what_a_process_ends_of_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input's fault at once, as an InputError; any other after the restarts, with what torchrun printed."""
    (tmp_path / "broken_loss.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    importlib.import_module("broken_loss")
    policy = tiny_policy(tmp_path / "start")
    pairs_of(random_rows(4), digest_of(policy)).save(tmp_path / "pairs.parquet")

    shown: list[tuple[str, int, int]] = []

    def attempt(what: Literal["policy", "value"], policy: Path) -> TrainingSummary:
        return train_launched(
            what,
            str(policy),
            tmp_path / "pairs.parquet",
            tmp_path / "out",
            TrainingSettings(objective="broken" if what == "policy" else "step_dpo"),
            LaunchSettings(arguments=("--standalone",), restarts=0),
            log=tmp_path / "training" / "log.jsonl",
            unfinished_at=tmp_path / "training" / "unfinished",
            board=tmp_path / "training" / "tensorboard",
            progress=lambda stage, done, total, **figures: shown.append((stage, done, total)),
        )

    said = tmp_path / "training" / "torchrun.log"
    with pytest.raises(InputError, match="nowhere: no such model file or directory") as refused:
        attempt("policy", tmp_path / "nowhere")
    assert "\n" not in str(refused.value)
    assert list(said.parent.iterdir()) == []
    with pytest.raises(LaunchedError) as failed:
        attempt("policy", policy)
    assert str(failed.value) == (
        f"training under torchrun: rank 0: ValueError: the loss is broken; the output of the processes is in {said}"
    )
    assert "and more lines" in said.read_text()
    assert not (tmp_path / "out").exists()
    assert shown == [("reference", 1, 1)], "they tell how far they are"
    summary = attempt("value", policy)
    assert (summary.objective, summary.rows) == ("value", 4)
    assert shown[-1] == ("train", 1, 1)
    assert not said.exists()
    assert {"log.jsonl", "tensorboard"} >= {path.name for path in said.parent.iterdir()}
    assert (tmp_path / "out").is_dir()

"""Memory that runs out in a model in shards: all processes end, and the next start continues with a smaller budget."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mcts_dpo.training import TrainingSettings, train
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

COMMON = {"optimiser": {"lr": 1e-3}, "data": {"batch_size": 6, "epochs": 2, "max_batch_tokens": 256}}
PLENTY = [10**6, 0]


def launch(folder: Path, limits: list[list[list[int]]], restarts: int, *options: str) -> Any:
    (folder / "limits.json").write_text(json.dumps(limits))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    command = ["train", "-m", str(folder / "start"), "-d", str(folder / "pairs.parquet"), "-o", str(folder / "two")]
    settings = [f"training.{name}={value}" for name, value in COMMON.items()]
    script = ["-m", "tests.training.starved", str(folder / "limits.json"), *command, *settings]
    return subprocess.run(
        [sys.executable, *launcher, *script, "training.sharding=true", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def lines(done: Any) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("mcts-dpo:")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    policy = tiny_policy(tmp_path / "start")
    pairs_of(random_rows(12), digest_of(policy)).save(tmp_path / "pairs.parquet")
    return tmp_path


def test_shards_end_with_one_line_and_the_same_command_goes_on_with_less(folder: Path) -> None:
    """In the reference's passes, before there is any checkpoint."""
    done = launch(folder, [[[40, 0]], [PLENTY]], 0)
    assert done.returncode != 0
    (line,) = lines(done)
    assert "update 1: memory did not suffice for 256 tokens at once; continuing with 32 " in line
    assert "all processes end; the same command (or torchrun --max-restarts) resumes from " in line
    assert str(folder / "two.unfinished") in line
    assert re.search(r"exitcode\s*: 75", done.stderr), done.stderr
    assert not (folder / "two").exists()
    left = json.loads(next((folder / "two.unfinished").glob("budget-*.json")).read_text())
    assert left["max_batch_tokens"] == 32

    again = launch(folder, [[[40, 0]], [PLENTY]], 0)
    assert again.returncode == 0, again.stderr
    summary = json.loads((folder / "two" / "training.json").read_text())["summary"]
    assert summary["notes"] == [left["note"]]
    assert not (folder / "two.unfinished").exists()
    _equals_one_process(folder)


def test_torchrun_restarts_them_and_a_later_halving_begins_at_the_checkpoint(folder: Path) -> None:
    done = launch(folder, [[[40, 0], [20, 12], PLENTY], [PLENTY]], 2, "training.checkpoint.updates=1")
    assert done.returncode == 0, done.stderr
    assert len(lines(done)) == 2
    summary = json.loads((folder / "two" / "training.json").read_text())["summary"]
    assert summary["notes"] == [line.removeprefix("mcts-dpo: ").split("; all")[0] for line in lines(done)]
    assert "continuing with 16 " in summary["notes"][1]
    assert not summary["notes"][1].startswith("update 1:")
    _equals_one_process(folder)


def _equals_one_process(folder: Path) -> None:
    """The budget sets memory and speed, and not what is learned."""
    settings = TrainingSettings.model_validate(COMMON)
    train(folder / "start", folder / "pairs.parquet", folder / "one", settings)
    ours, theirs = (load_file(folder / name / "model.safetensors") for name in ("one", "two"))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-6

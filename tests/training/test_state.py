"""A training that is killed, refused or short of disk: what it leaves behind, and what the same call does next."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.training import LoraSettings, TrainingSettings, train
from mcts_dpo.training.settings import TrainingSettings as Settings
from mcts_dpo.training.state import data_digest
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

# A server that has imported everything once: its children start at once, and share nothing with this process.
children = multiprocessing.get_context("forkserver")
children.set_forkserver_preload(["tests.training.test_state"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and pairs."""
    folder = tmp_path_factory.mktemp("state")
    policy = tiny_policy(folder / "policy")
    pairs_of(random_rows(48), digest_of(policy)).save(folder / "pairs.parquet")
    return folder


FULL = TrainingSettings(
    optimiser={"lr": 1e-3},
    data={"batch_size": 4, "epochs": 4, "max_batch_tokens": 60},
    checkpoint={"updates": 3},
    threads=1,
)
LORA = FULL.model_copy(update={"lora": LoraSettings(rank=2), "dtype": "bfloat16"})


def run(folder: Path, out: Path, settings: Settings, *, limit: int | None = None) -> dict[str, Any]:
    """Train; with a limit on the size of files, as on a full disk."""
    torch.set_num_threads(1)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    log = out.parent / f"{out.name}.jsonl"
    return train(folder / "policy", folder / "pairs.parquet", out, settings, log=log).as_dict()


def start(folder: Path, out: Path, settings: Settings, *, limit: int | None = None) -> Any:
    process = children.Process(target=_child, args=(folder, out, settings, limit))
    process.start()
    return process


def _child(folder: Path, out: Path, settings: Settings, limit: int | None) -> None:
    try:
        run(folder, out, settings, limit=limit)
    except InputError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (out.parent / "error").write_text(str(error))
        raise SystemExit(2) from None


def kill_after_lines(process: Any, out: Path, lines: int) -> None:
    """SIGKILL as soon as the live log has that many lines."""
    live = out.parent / f"{out.name}.unfinished" / "log.jsonl"
    deadline = time.monotonic() + 900
    while not live.exists() or live.read_bytes().count(b"\n") < lines:
        assert process.is_alive(), "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "bf16 LoRA"])
def test_no_kill_changes_a_byte(folder: Path, tmp_path: Path, settings: Settings) -> None:
    """SIGKILL after a few lines of the log, then at moments drawn at random until a process lives to the end."""
    undisturbed, disturbed = tmp_path / "a", tmp_path / "b"
    summary = run(folder, undisturbed / "out", settings)
    disturbed.mkdir()
    for lines in (3, 11, 20):
        kill_after_lines(start(folder, disturbed / "out", settings), disturbed / "out", lines)
    rng = random.Random(0)
    kills = 0
    while True:
        process = start(folder, disturbed / "out", settings)
        process.join(rng.uniform(0.1, 1.0) if kills < 6 else None)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert contents(disturbed) == contents(undisturbed), "not even a left-over of a killed process remains"
    assert json.loads((disturbed / "out" / "training.json").read_text())["summary"] == summary


def test_a_resumed_run_repeats_nothing_before_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_after_lines(start(folder, out, FULL), out, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.unfinished"]
    seen: list[tuple[str, int]] = []

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        seen.append((stage, done))

    train(folder / "policy", folder / "pairs.parquet", out, FULL, progress=watch)
    assert {stage for stage, _ in seen} == {"train"}, "the reference is not computed again"
    assert seen[0][1] >= 19
    assert seen[-1] == ("train", 48)
    assert not (tmp_path / "out.unfinished").exists()


def test_the_checkpoint_of_another_training_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_after_lines(start(folder, out, FULL), out, 6)
    checkpoint = tmp_path / "out.unfinished" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    pairs = folder / "pairs.parquet"
    other = tiny_policy(tmp_path / "other", seed=1)
    more = pairs_of(random_rows(49), digest_of(folder / "policy"))
    for policy, data, settings, message in (
        (other, pairs, FULL, "(another policy)"),
        (folder / "policy", more, FULL, "(other data)"),
        (folder / "policy", pairs, changed(FULL, {"optimiser.lr": 2e-3}), "(training.optimiser.lr: 0.001 -> 0.002)"),
    ):
        with pytest.raises(InputError) as refused:
            train(policy, data, out, settings)
        assert message in str(refused.value)
        assert str(refused.value).startswith(f"{checkpoint}: checkpoint of another training")
        assert "\n" not in str(refused.value)
        assert checkpoint.read_bytes() == before
    # What moves no weight may change.
    rarely = changed(FULL, {"checkpoint.updates": 40, "on_alarm": "stop", "chosen_alarm": 1e9})
    rarely = rarely.model_copy(update={"rejected_alarm": 1e9})
    train(folder / "policy", pairs, out, rarely, log=tmp_path / "log")
    undisturbed = run(folder, tmp_path / "plain", FULL)
    assert (tmp_path / "log").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert undisturbed["updates"] == 48


def test_the_digest_of_data_looks_at_every_number() -> None:
    """Also in the middle of long arrays, which `repr` leaves out."""
    numbers = np.arange(5000.0)
    other = numbers.copy()
    other[2500] = 0
    for wrapped in ((numbers,), {"of": numbers}, ("a", (None, numbers))):
        changed = data_digest(_with(wrapped, other))
        assert changed != data_digest(wrapped) == data_digest(_with(wrapped, numbers.copy()))
    assert len({data_digest(one) for one in ((numbers, other), (other, numbers), ((numbers,), other))}) == 3
    with pytest.raises(TypeError, match="no digest of a Tensor"):
        data_digest((torch.zeros(2),))


def _with(value: Any, array: Any) -> Any:
    """`value` with `array` in place of the array in it."""
    if isinstance(value, tuple):
        return tuple(_with(one, array) for one in value)
    if isinstance(value, dict):
        return {name: _with(one, array) for name, one in value.items()}
    return array if isinstance(value, np.ndarray) else value


def test_random_numbers_go_on_where_they_were(folder: Path, tmp_path: Path) -> None:
    """An evaluation that draws some sees the same in a run that was interrupted."""
    settings = changed(FULL, {"data.epochs": 1, "evaluate_every": 1})

    def draw(out: Path, broken_at: int | None, seed: int) -> None:
        def evaluate(update: int, model: Any) -> dict[str, float]:
            if update == broken_at:
                raise KeyboardInterrupt
            return {"drawn": float(torch.rand(()))}

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            train(folder / "policy", folder / "pairs.parquet", out, settings, log=tmp_path / "log", evaluate=evaluate)

    draw(tmp_path / "undisturbed", None, seed=7)
    expected = (tmp_path / "log").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "out", 5, seed=7)
    draw(tmp_path / "out", None, seed=8)
    assert (tmp_path / "log").read_bytes() == expected


def test_two_trainings_of_one_policy_do_not_meet(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(folder, out, changed(FULL, {"data.epochs": 4000}))
    try:
        while not (tmp_path / "out.unfinished" / "log.jsonl").exists():
            time.sleep(0.01)
        with pytest.raises(InputError, match=r"out\.unfinished: another process is training there"):
            run(folder, out, FULL)
    finally:
        process.kill()
        process.join()


def test_a_full_disk_is_explained_and_the_last_checkpoint_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_after_lines(start(folder, out, FULL), out, 6)
    checkpoint = tmp_path / "out.unfinished" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    process = start(folder, out, FULL, limit=len(before) // 2)
    process.join()
    message = (tmp_path / "error").read_text()
    assert process.exitcode == 2
    assert "the file would be too large; nothing half-written is left and the last checkpoint is kept in" in message
    assert message.count("\n") == 0
    assert checkpoint.read_bytes() == before
    (tmp_path / "error").unlink()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {"out.unfinished", "checkpoint.safetensors", "log.jsonl", ".lock"}
    run(folder, out, FULL)
    run(folder, tmp_path / "undisturbed", FULL)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("limit", [100, 6000])
def test_a_disk_that_is_full_from_the_start_leaves_nothing(folder: Path, tmp_path: Path, limit: int) -> None:
    """Too small for one line of the log; and large enough for the log, but not for the policy."""
    settings = changed(FULL, {"checkpoint.updates": None, "checkpoint.minutes": None, "data.epochs": 1})
    process = start(folder, tmp_path / "out", settings, limit=limit)
    process.join()
    assert process.exitcode == 2
    message = (tmp_path / "error").read_text()
    assert "nothing half-written is left and nothing was kept; make room and give the same command again" in message
    assert [path.name for path in tmp_path.iterdir()] == ["error"]

"""The chaos benchmark in small, and that its watcher would see what it watches for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos import chaos, contents, half_files
from tests.conftest import ToyWorld


@pytest.mark.parametrize(("schedule", "kills"), [("synchronous", 4), ("asynchronous", 2)])
def test_killed_runs_end_like_the_undisturbed_one_and_no_half_file_is_ever_seen(
    schedule: str, kills: int, toy_world: ToyWorld, tmp_path: Path
) -> None:
    search = toy_world.config.search.model_copy(update={"schedule": schedule})
    found = chaos(toy_world.config.model_copy(update={"search": search}), tmp_path, kills=kills, seed=5)
    assert found["schedule"] == schedule
    assert found["kills"] == sum(found["stages"].values()) == kills
    assert found["identical"] == 1, found["different"]
    assert found["half_files"] == 0, found["half"]

    # What the watcher is for, done by hand.
    expected = contents(tmp_path / "undisturbed")
    directory = tmp_path / "run-000"
    assert half_files(directory, expected) == []
    pairs = directory / "round-000" / "pairs.parquet"
    pairs.write_bytes(pairs.read_bytes()[:-7])
    (directory / "round-001" / "policy" / "config.json").unlink()
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines[:2]))
    assert sorted(half_files(directory, expected)) == ["round-000/pairs.parquet", "round-001/policy/config.json"]
    metrics.write_bytes(b"".join(lines[:2])[:-1])
    assert "metrics.jsonl" in half_files(directory, expected)

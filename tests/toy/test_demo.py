"""The demonstration from end to end, on a smaller scale, and what it shows."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from rich.console import Console

from mcts_dpo.common.files import read_json
from mcts_dpo.data import load_problems, overlap
from mcts_dpo.toy.demo import demo, show
from tests.conftest import ToyWorld


def test_the_demonstration_from_end_to_end(toy_world: ToyWorld, tmp_path: Path) -> None:
    # A warm start that is there is used: this one takes seconds, the demonstration's own a minute.
    shutil.copytree(toy_world.policy, tmp_path / "start")
    summary = demo(tmp_path, seed=3, rounds=1, problems_per_round=24, test_problems=40)
    written = read_json(tmp_path / "summary.json")
    assert written.keys() >= {"accuracy_before", "accuracy_after", "rounds", "seconds", "seed"}
    assert (written["rounds"], written["seed"]) == (1, 3)
    assert written["accuracy_before"] == read_json(tmp_path / "baseline" / "metrics.json")["test"]["greedy"]["value"]
    after = read_json(tmp_path / "round-000" / "metrics.json")["test"]["greedy"]["value"]
    assert written["accuracy_after"] == after
    assert written["seconds"] > 0
    train = load_problems(tmp_path / "problems" / "train.jsonl")
    test = load_problems(tmp_path / "problems" / "test.jsonl")
    assert (len(train), len(test)) == (24, 40)
    assert overlap(train, test) == []
    for name in ("accuracy.png", "training.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    stream = io.StringIO()
    show(tmp_path, summary, Console(file=stream, width=120))
    text = stream.getvalue()
    assert "wrong habits on purpose" in text
    assert "round 1" in text
    assert text.count("The same problem, ") == 2
    assert "N=" in text
    # Again, in the same place: everything is there, nothing is repeated.
    stamp = (tmp_path / "round-000" / "evaluation.parquet").stat().st_mtime_ns
    assert demo(tmp_path, seed=3, rounds=1, problems_per_round=24, test_problems=40) == summary
    assert (tmp_path / "round-000" / "evaluation.parquet").stat().st_mtime_ns == stamp

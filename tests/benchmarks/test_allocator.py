"""The comparison of one total budget with even spending, small; a second call continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import allocator, judges
from mcts_dpo.toy.school import JudgeSchoolSettings
from tests.benchmarks.test_judges import TINY


def test_every_arm_runs_and_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "horizon_policy", lambda: TINY)
    monkeypatch.setattr(judges, "SCHOOL", JudgeSchoolSettings(steps=2))
    monkeypatch.setattr(judges, "TREE_PROBLEMS", 3)
    monkeypatch.setattr(allocator, "JUDGES", {allocator.JUDGE: allocator.JUDGES[allocator.JUDGE]})
    first = allocator.one_seed(tmp_path, 0, count=2, budget=300)
    assert len(first) == len(allocator.EVEN) + 1
    assert all(0 < arm["tokens"] <= 300 for arm in first.values())
    shared = first[f"{allocator.JUDGE}, allocator"]
    assert sum(shared["bought"].values()) == pytest.approx(shared["tokens"])
    assert allocator.one_seed(tmp_path, 0, count=2, budget=300) == first
    keys = allocator.summary([first, first], 2)
    assert {"allocator_gain", "allocator_right_per_million_tokens", "even_right_per_cpu_second"} <= keys.keys()
    assert allocator.table([first, first], 2).count("\n") == len(first) + 1

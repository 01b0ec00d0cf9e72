"""The comparison of allocation rules, small: every rule runs with a few judges, and a second call continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import judges, widening
from mcts_dpo.toy.school import JudgeSchoolSettings
from tests.benchmarks.test_judges import TINY


def test_every_arm_runs_and_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "horizon_policy", lambda: TINY)
    monkeypatch.setattr(judges, "SCHOOL", JudgeSchoolSettings(steps=2))
    monkeypatch.setattr(judges, "TREE_PROBLEMS", 3)
    monkeypatch.setattr(widening, "SAMPLES", ())
    judged = {name: widening.JUDGES[name] for name in (*widening.TRAINED, "oracle")}
    monkeypatch.setattr(widening, "JUDGES", judged)
    first = widening.one_seed(tmp_path, 0, count=2, budget=60)
    assert len(first) == 2 + len(judged) * len(widening.RULES)
    assert all(0 < arm["tokens"] <= 60 for arm in first.values())
    assert widening.one_seed(tmp_path, 0, count=2, budget=60) == first
    shares = {name: {**arm, "truly covered": 0.5} for name, arm in first.items()}
    keys = widening.summary([shares, shares], budget=60)
    assert keys["true_coverage_ratio_judge"] == 1
    nothing = {name: {**arm, "truly covered": 0.0} for name, arm in first.items()}
    assert widening.summary([nothing, nothing], budget=60)["true_coverage_ratio_judge"] is None
    assert widening.table([first, first]).count("\n") == len(first) + 1

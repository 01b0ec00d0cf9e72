"""The benchmark of steps that act: two seeds of a hardly taught policy run, and a second call continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import acting
from mcts_dpo.toy.delegation import tool_policy


def test_every_arm_runs_and_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tool_policy().model_copy(update={"steps": 60, "demonstrations": 300, "batch_size": 16})
    monkeypatch.setattr(acting, "PROBLEMS_PER_ROUND", 6)
    monkeypatch.setattr("mcts_dpo.toy.delegation.tool_policy", lambda: small)
    found = [acting.one_seed(tmp_path, seed, 8) for seed in (0, 1)]
    monkeypatch.setattr(acting, "run", None)
    assert [acting.one_seed(tmp_path, seed, 8) for seed in (0, 1)] == found
    keys = acting.summary(found)
    assert keys["tool_gain"] == pytest.approx(
        sum(one["calculator"]["greedy_after"] - one["calculator"]["greedy_before"] for one in found) / 2
    )
    assert acting.table(found).count("\n") == 3

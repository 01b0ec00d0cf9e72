"""The demonstration's policies, greedily and by search, on a few problems."""

from __future__ import annotations

from pathlib import Path

from benchmarks.demo import STRATEGIES, measure
from mcts_dpo.data import save_problems
from tests.conftest import ToyWorld


def test_a_policy_is_measured_with_each_strategy(toy_world: ToyWorld, tmp_path: Path) -> None:
    save_problems(tmp_path / "problems" / "train.jsonl", toy_world.train[:2])
    save_problems(tmp_path / "problems" / "test.jsonl", toy_world.test)
    found = measure(tmp_path, toy_world.policy, problems=8, budget=80)
    assert tuple(found["accuracy"]) == STRATEGIES
    difference = found["gain"]["difference"]["value"]
    assert abs(difference - (found["accuracy"]["mcts"] - found["accuracy"]["greedy"])) < 1e-9
    assert (found["gain"]["gained"] - found["gain"]["lost"]) / 8 == difference

"""The comparison of judges, small: every part runs and continues; what a strategy found is counted by the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import judges
from mcts_dpo.solve import Solution
from mcts_dpo.solve.vote import Sampled
from mcts_dpo.toy.horizon import horizon_problems
from mcts_dpo.toy.policy import WarmStartSettings
from mcts_dpo.toy.school import JudgeSchoolSettings

TINY = WarmStartSettings(
    demonstrations=60, events=(6,), steps=8, development=4, width=16, feed_forward=32, batch_size=4, context=384
)


def _again(*_: object, **__: object) -> None:
    raise AssertionError("what is there is made again")


def test_solutions_are_counted_by_number_and_by_truth() -> None:
    (problem,) = horizon_problems(1, 5)
    lucky = str(problem.solution).replace("=", "= 1", 1)
    found = [Sampled(text, problem.answer, 10) for text in (str(problem.solution), lucky, lucky)]
    solution = Solution(answer=problem.answer, tokens=60, finished=(*found, Sampled("cut", None, 30, cut=True)))
    row = judges.outcomes(problem, solution)
    assert (row["right"], row["true"], row["answer"], row["covered"], row["truly covered"]) == (3, 1, True, True, True)
    wrong = judges.outcomes(problem, replace(solution, answer="1000"))
    assert not wrong["answer"]


def test_every_part_runs_and_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "horizon_policy", lambda: TINY)
    monkeypatch.setattr(judges, "SCHOOL", JudgeSchoolSettings(steps=2))
    monkeypatch.setattr(judges, "JUDGED_PROBLEMS", 2)
    monkeypatch.setattr(judges, "TREE_PROBLEMS", 3)
    monkeypatch.setattr(judges, "ARMS", {name: (*arm[:2], arm[2][-1:]) for name, arm in judges.ARMS.items()})
    first = judges.one_seed(tmp_path, 0, count=2, budget=60)
    assert judges.JUDGES.keys() <= first["judges"].keys()
    assert len(first["arms"]) == len(judges.ARMS)
    assert all(0 < arm["tokens"] <= 60 for arm in first["arms"].values())
    for name in ("solve", "measure", "warm_start", "judge_school", "search_problems", "train_process_reward"):
        monkeypatch.setattr(judges, name, _again)
    assert judges.one_seed(tmp_path, 0, count=2, budget=60) == first

"""The judge school changes a policy, repeatably, and needs a warm start's record."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.toy.policy import WarmStartSettings, warm_start
from mcts_dpo.toy.school import JudgeSchoolSettings, judge_school

SMALL = WarmStartSettings(
    demonstrations=60, events=(1,), steps=6, check_every=6, development=8, width=16, feed_forward=32, batch_size=8
)


def test_the_judge_school_changes_the_policy_and_is_repeatable(tmp_path: Path) -> None:
    warm_start(tmp_path / "plain", seed=0, settings=SMALL)
    told: list[str] = []
    for name in ("one", "again"):
        judge_school(
            tmp_path / "plain",
            tmp_path / name,
            settings=JudgeSchoolSettings(steps=3),
            progress=lambda stage, *_, **__: told.append(stage),
        )
    plain, one, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "one", "again"))
    assert plain != one == again
    assert told == ["judge school"] * 6
    # A schooled policy can go to school again.
    judge_school(tmp_path / "one", tmp_path / "two", settings=JudgeSchoolSettings(steps=1))


def test_a_policy_without_a_record_is_refused(tmp_path: Path) -> None:
    warm_start(tmp_path / "plain", seed=0, settings=SMALL)
    (tmp_path / "plain" / "warm_start.json").write_text("{}")
    with pytest.raises(InputError, match=r"warm_start\.json: does not tell a warm start's seed"):
        judge_school(tmp_path / "plain", tmp_path / "out")

"""The report's benchmark: a run's trees again and again, written and opened in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import measure
from mcts_dpo.common.errors import InputError
from mcts_dpo.pipeline.rounds import run
from tests.conftest import ToyWorld


def test_it_opens_as_many_trees_as_asked_for(toy_world: ToyWorld, tmp_path: Path) -> None:
    run(toy_world.config.model_copy(update={"rounds": 1}), tmp_path / "run")
    found = measure(tmp_path / "run", trees=50, openings=1)
    assert found["trees"] == 60
    assert 0 < found["megabytes"] < 20
    assert len(found["seconds_to_open"]) == 1
    with pytest.raises(InputError, match="no trees"):
        measure(tmp_path, trees=50)

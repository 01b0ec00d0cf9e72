"""Objectives by name, and one that is added from outside the package: one file, with its own settings, on lists."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.training import LaunchSettings, TrainingSettings, objective_settings, train, train_launched
from mcts_dpo.training.objectives import registry
from mcts_dpo.training.objectives.base import Objective, ObjectiveSettings
from mcts_dpo.training.objectives.registry import BUILT_IN, module_of, objective_named, register_objective
from tests.documents import ROOT, blocks
from tests.training.world import digest_of, siblings_of, tiny_policy

LISTS = [([5, 6], [7], [[8], [9, 10], [11]]), ([5, 6], [], [[12], [13]]), ([20], [21], [[22], [23], [24, 25]])]


@pytest.fixture
def ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The objective of docs/extending.md, in a module of its own."""
    body = next(text for _, text in blocks("docs/extending.md", "python") if text.startswith("# ranked.py"))
    assert body.count("\n") < 40
    (tmp_path / "ranked_from_outside.py").write_text(body.replace('"ranked"', '"ranked_from_outside"'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    sys.modules.pop("ranked_from_outside", None)
    importlib.import_module("ranked_from_outside")
    yield "ranked_from_outside"
    del registry._REGISTERED["ranked_from_outside"]


def test_a_list_loss_of_its_own_trains_here_and_in_other_processes(ranked: str, tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "policy")
    table = siblings_of(LISTS, digest_of(policy))
    table.save(tmp_path / "siblings.parquet")
    settings = TrainingSettings(
        objective={"kind": ranked, "depth": 1, "beta": 0.5, "nll_weight": 0.5},
        optimiser={"lr": 1e-2},
        data={"epochs": 6},
        threads=1,
    )
    summary = train(policy, table, tmp_path / "out", settings, log=tmp_path / "log.jsonl")
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # At the start policy and reference agree, so that each of n siblings is first with probability 1 / n.
    assert log[0]["preference_loss"] == pytest.approx(np.mean(np.log([3, 2, 3])), rel=1e-5)
    expected = 0.5 * log[0]["nll"] + 0.02 * log[0]["preference_loss"]
    assert log[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert log[-1]["preference_loss"] < log[0]["preference_loss"]
    assert json.loads((tmp_path / "out" / "training.json").read_text())["settings"]["objective"] == {
        "kind": ranked,
        "nll_weight": 0.5,
        "preference_weight": 0.02,
        "beta": 0.5,
        "depth": 1,
    }
    places: Any = {name: tmp_path / "launched" / name for name in ("log", "unfinished_at", "board")}
    launch = LaunchSettings(arguments=("--standalone",), restarts=0)
    again = train_launched(
        "policy", str(policy), tmp_path / "siblings.parquet", tmp_path / "two", settings, launch, **places
    )
    assert again == summary


def test_an_unknown_name_is_told_the_nearest(ranked: str) -> None:
    with pytest.raises(InputError, match=r"'ipoo' is not an objective; did you mean 'ipo'\? \(accepted: hinge, ipo, "):
        objective_named("ipoo")
    assert objective_settings(ranked, depth=3).depth == 3
    with pytest.raises(ValueError, match="depth"):
        objective_settings(ranked, depth=0)
    with pytest.raises(ValueError, match="flip_rate"):
        TrainingSettings(objective={"kind": ranked, "flip_rate": 0.1})


def test_a_name_is_taken_once_and_needed(ranked: str) -> None:
    for taken in (ranked, "ipo"):
        model = type("Again", (ObjectiveSettings,), {"__annotations__": {"kind": str}, "kind": taken})
        with pytest.raises(ValueError, match=f"the objective '{taken}' exists already"):
            register_objective(Objective(model, "pairs", None))
    with pytest.raises(ValueError, match=r"ObjectiveSettings\.kind: needs a default"):
        register_objective(Objective(ObjectiveSettings, "pairs", None))


def test_other_processes_import_the_module_of_an_objective(ranked: str) -> None:
    assert module_of(ranked) == "ranked_from_outside"
    assert [module_of(name) for name in BUILT_IN] == [None] * len(BUILT_IN)


def test_an_objective_of_a_program_is_unknown_to_other_processes() -> None:
    fields = {"__annotations__": {"kind": str}, "kind": "of_a_program", "__module__": "__main__"}
    register_objective(Objective(type("Mine", (ObjectiveSettings,), fields), "pairs", None))
    try:
        with pytest.raises(InputError, match="'of_a_program' was registered by the program that is running"):
            module_of("of_a_program")
    finally:
        del registry._REGISTERED["of_a_program"]


def test_every_file_of_the_folder_is_the_objective_of_its_name() -> None:
    for name in BUILT_IN:
        objective = objective_named(name)
        assert objective.name == name
        assert objective.module == f"mcts_dpo.training.objectives.{name}"
        assert TrainingSettings(objective=name).objective == objective.settings()

"""The ablation suites: every arm is a sound run; a small suite runs, resumes, and says what came out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations
from benchmarks.suites import ALL_IN_ONE, INDEPENDENT, SUITES, Arm, Suite
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import save_problems
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import ToyWorld

SMALL = Suite(
    "Does it run?",
    {
        "rft": Arm({"training.objective": "rft"}),
        "step_dpo, value": Arm({"training.objective": "step_dpo", "judges.value.weight": 0.5}),
        "offline": Arm({"training.objective": "rft", "rounds": ALL_IN_ONE}),
    },
)


@pytest.mark.parametrize("name", SUITES)
def test_every_arm_is_a_sound_run_of_the_same_size(name: str, tmp_path: Path) -> None:
    suite = SUITES[name]
    assert suite.compared_with(suite.control) is None
    assert all(suite.compared_with(arm) in suite.arms for arm in suite.arms if arm != suite.control)
    assert suite.against.keys() <= suite.arms.keys()
    base = ablations.world(tmp_path, 0)
    for arm in suite.arms.values():
        config = ablations.arm_config(base, arm, 1e-4, [])
        assert config.rounds * config.problems_per_round == ablations.ROUNDS * ablations.PROBLEMS
        assert config.rounds * (config.training.data.max_updates or 0) == ablations.ROUNDS * ablations.UPDATES
        assert config.training.optimiser.lr == 1e-4
        tuning = ablations.arm_config(base, arm, 1e-4, [], tuning=True)
        assert (tuning.rounds, tuning.training.data.max_updates) == (1, ablations.UPDATES)
    objectives = {ablations.arm_config(base, arm, 1e-4, []).training.objective.kind for arm in suite.arms.values()}
    assert {"rft", "step_rft"} <= objectives


def test_a_recipe_says_what_the_world_leaves_open(tmp_path: Path) -> None:
    arm = SUITES["pairs"].arms["whole solutions, iterative-dpo"]
    config = ablations.arm_config(ablations.world(tmp_path, 0), arm, 1e-4, [])
    assert (config.search.simulations, config.search.max_depth, config.search.children) == (1, 1, INDEPENDENT)
    assert (config.training.objective.beta, config.training.objective.preference_weight) == (0.1, 1.0)
    assert config.problems_per_round == ablations.PROBLEMS


def test_a_small_suite_runs_and_resumes(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"PROBLEMS": 8, "UPDATES": 2, "SAMPLES": 4}.items():
        monkeypatch.setattr(ablations, name, value)
    monkeypatch.setitem(SUITES, "losses", SMALL)
    for seed in (ablations.TUNING_SEED, 0, 1):
        place = tmp_path / f"seed-{seed}"
        shutil.copytree(toy_world.policy, place / "start")
        save_problems(place / "problems" / "train.jsonl", toy_world.train)
        save_problems(place / "problems" / "test.jsonl", toy_world.test)
    # In this process, so that the sizes above hold.
    monkeypatch.setattr(ablations, "make_world", lambda folder, seed: None)
    monkeypatch.setattr(ablations, "work", lambda command, what: ablations.do(what, tmp_path, "losses", []))
    arguments = ["ablations", "--suite", "losses", "--seeds", "2", "--out", str(tmp_path), "--jobs", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    ablations.main()
    said = capsys.readouterr().out
    assert "| offline |" in said
    assert "step_dpo, value" in said
    folder = tmp_path / "losses"
    assert (folder / "table.csv").read_text().count("\n") == 4
    assert (folder / "figure.png").stat().st_size > 1000
    rows = ablations.collect(tmp_path, SMALL, "losses", [0, 1], ablations.tuned(tmp_path, "losses"))
    assert {row["updates"] for row in rows} == {4}
    assert rows[0]["greedy difference"] is None
    # The same first trees for the arms that search alike; a value model only after the first round.
    one, two = (folder / "seed-0" / arm / "round-000" / "trees" for arm in ("rft", "step_dpo_value"))
    assert [path.read_bytes() for path in sorted(one.iterdir())] == [
        path.read_bytes() for path in sorted(two.iterdir())
    ]
    assert (folder / "seed-0" / "step_dpo_value" / "round-001" / "value").is_dir()
    # Again: nothing is run anew.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    ablations.main()
    assert capsys.readouterr().out == said
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_any_model_and_data_by_override(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_problems(tmp_path / "train.jsonl", toy_world.train)
    save_problems(tmp_path / "test.jsonl", toy_world.test)
    own = [f"model={toy_world.policy}", f"train.source={tmp_path}/train.jsonl", f"test.source={tmp_path}/test.jsonl"]
    own += [f"prompt.{name}={json.dumps(value)}" for name, value in toy_prompt().model_dump(mode="json").items()]
    own += [
        "rounds=1",
        "problems_per_round=10",
        "training.data.max_updates=2",
        "search.max_tokens=96",
        "engine.threads=1",
    ]
    monkeypatch.setitem(SUITES, "losses", Suite("?", {"rft": Arm({"training.objective": "rft"})}))
    out, rates = tmp_path / "out", (1e-4, 1e-3)
    monkeypatch.setattr(ablations, "work", lambda command, what: ablations.do(what, out, "losses", own, rates))
    options = ["--suite", "losses", "--seeds", "1", "--out", str(out), "--jobs", "1", "--rates", "1e-4,1e-3"]
    monkeypatch.setattr("sys.argv", ["ablations", *options, *own])
    ablations.main()
    assert "| rft |" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["losses"], "no world of its own is made"
    made = load_settings(RunConfig, out / "losses" / "seed-0" / "rft" / "config.yaml")
    assert (made.model, made.training.data.max_updates) == (str(toy_world.policy), 2)
    assert made.training.optimiser.lr in rates


def test_differences_are_called_by_their_name() -> None:
    rng = np.random.default_rng(0)
    same = [rng.choice([-1.0, 0.0, 1.0], 500) for _ in range(4)]
    assert ablations.difference(same, 1)["verdict"] == "a tie"
    better = [one * 0.1 + 0.5 for one in same]
    assert ablations.difference(better, 1)["verdict"] == "better"
    assert ablations.difference([-one for one in better], 1)["verdict"] == "worse"
    few, many = ablations.difference(better, 1), ablations.difference(better, 20)
    assert many["low"] < few["low"]
    assert many["high"] > few["high"]
    assert ablations.difference(same[:1], 1)["low"] is None


def test_a_model_or_problems_that_are_not_there_touch_nothing(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_problems(tmp_path / "there.jsonl", toy_world.train)
    there, absent = f"{tmp_path}/there.jsonl", f"{tmp_path}/absent.jsonl"
    good = {"model": str(toy_world.policy), "train.source": there, "test.source": there}
    for name, value in (("model", "/no/such/model"), ("train.source", absent), ("test.source", absent)):
        own = [f"{key}={given}" for key, given in (good | {name: value}).items()]
        monkeypatch.setattr("sys.argv", ["ablations", "--suite", "pairs", "--out", str(tmp_path / "out"), *own])
        with pytest.raises(SystemExit) as stopped:
            ablations.main()
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert value in said
        assert said.count("\n") == 1
        assert not (tmp_path / "out").exists()

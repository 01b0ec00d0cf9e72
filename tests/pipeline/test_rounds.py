"""The self-training loop on the built-in world: what it leaves behind, and that no kill can change it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json
from mcts_dpo.common.settings import changed, dump_settings
from mcts_dpo.data import load_problems, save_problems
from mcts_dpo.evaluation import Evaluation
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import Pairs, Siblings, Solutions
from mcts_dpo.search import Forest
from tests.conftest import ToyWorld

# The only files that hold clock times, or that belong to the process.
UNTIMED = {"timings.jsonl", ".lock"}
TIMED_FOLDER = "tensorboard"


def fingerprints(directory: Path) -> dict[str, str]:
    """SHA-256 of every file of a run, by relative path."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name not in UNTIMED]
    files = [path for path in files if path.parent.name != TIMED_FOLDER]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    run(toy_world.config, directory)
    return directory


def test_a_run_leaves_every_stage_in_open_files(undisturbed: Path, toy_world: ToyWorld) -> None:
    for index in range(2):
        place = undisturbed / f"round-00{index}"
        forests = [Forest.load(shard) for shard in sorted((place / "trees").glob("*.parquet"))]
        assert [len(forest.trees) for forest in forests] == [8, 8, 4]
        searched = [info.problem_id for forest in forests for info in forest.trees]
        assert searched == [problem.id for problem in toy_world.train[20 * index : 20 * (index + 1)]]
        metrics = read_json(place / "metrics.json")
        assert metrics["pairs"] == len(Pairs.load(place / "pairs.parquet")) > 0
        assert metrics["solutions"] == len(Solutions.load(place / "solutions.parquet")) > 0
        assert metrics["search"]["problems"] == 20
        evaluation = Evaluation.load(place / "evaluation.parquet")
        assert metrics["test"]["greedy"]["value"] == sum(evaluation.correct) / len(toy_world.test)
        updates = [json.loads(line) for line in (place / "training" / "log.jsonl").read_text().splitlines()]
        assert len(updates) == metrics["training"]["updates"] > 0
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [-1, 0, 1]
    assert {line["stage"] for line in map(json.loads, (undisturbed / "timings.jsonl").open())} == {
        "evaluate",
        "search",
        "pairs",
        "train",
    }


def test_the_policy_moves_and_each_round_starts_from_the_one_before(undisturbed: Path, toy_world: ToyWorld) -> None:
    weights = [
        (folder / "model.safetensors").read_bytes()
        for folder in (toy_world.policy, undisturbed / "round-000" / "policy", undisturbed / "round-001" / "policy")
    ]
    assert len(set(weights)) == 3


def test_same_seed_same_bytes(undisturbed: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    run(toy_world.config, tmp_path)
    assert fingerprints(tmp_path) == fingerprints(undisturbed)


@pytest.mark.parametrize(
    "awaited",
    [
        "round-000/training/unfinished/log.jsonl",
        "round-001/trees/shard-0001.parquet",
    ],
)
def test_kill_and_the_same_command_again(awaited: str, undisturbed: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    """SIGKILL once `awaited` is there (during search, during training), then run to the end."""
    config = tmp_path / "run.yaml"
    config.write_text(dump_settings(toy_world.config), encoding="utf-8")
    directory = tmp_path / "run"
    command = [Path(sys.executable).parent / "mcts-dpo", "run", "--config", config, "--out", directory, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 900
    while not (directory / awaited).exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (directory / "round-001" / "metrics.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shown = {"accuracy.png", "training.png", "report.html"}  # the command's, not the loop's
    mine = {name: digest for name, digest in fingerprints(directory).items() if name not in shown}
    assert mine == fingerprints(undisturbed), "not even a left-over of the killed process remains"


def test_another_config_is_refused_and_more_rounds_continue(
    undisturbed: Path, toy_world: ToyWorld, tmp_path: Path
) -> None:
    first = toy_world.config.model_copy(update={"rounds": 1})
    run(first, tmp_path)
    before = fingerprints(tmp_path / "round-000")
    with pytest.raises(InputError, match=r"another config \(problems_per_round: 20 -> 10\)"):
        run(first.model_copy(update={"problems_per_round": 10}), tmp_path)
    run(toy_world.config, tmp_path)
    assert fingerprints(tmp_path / "round-000") == before
    assert fingerprints(tmp_path / "round-001") == fingerprints(undisturbed / "round-001")
    with pytest.raises(InputError, match="rounds can grow, not shrink to 1"):
        run(first, tmp_path)


def test_trees_that_nobody_reads_again_are_not_searched_again(toy_world: ToyWorld, tmp_path: Path) -> None:
    config = toy_world.config.model_copy(update={"rounds": 1})
    run(config, tmp_path)
    shard = tmp_path / "round-000" / "trees" / "shard-0000.parquet"
    shard.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"shard-0000\.parquet: has changed since its stage finished; delete .*search"):
        run(config, tmp_path)
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-0000\.parquet: is missing since its stage finished"):
        run(config, tmp_path)


def test_one_process_at_a_time(toy_world: ToyWorld, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is running in it"):
            run(toy_world.config, tmp_path)


def test_too_few_problems_and_contaminated_ones(toy_world: ToyWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"40 usable training problems, but 3 rounds × 20"):
        run(toy_world.config.model_copy(update={"rounds": 3}), tmp_path / "a")
    mixed = tmp_path / "mixed.jsonl"
    save_problems(mixed, [*toy_world.train[:25], *load_problems(toy_world.config.test)[:15]])
    config = toy_world.config.model_copy(
        update={"train": toy_world.config.train.model_copy(update={"source": str(mixed), "limit": None})}
    )
    with pytest.raises(InputError, match="25 usable training problems"):
        run(config, tmp_path / "b")
    result = run(config.model_copy(update={"rounds": 1}), tmp_path / "c")
    assert result.rounds[0]["train_problems_left_out"] == 15


@pytest.mark.parametrize(("objective", "data"), [("rft", Solutions), ("step_rft", Pairs), ("lipo", Siblings)])
def test_arms_train_on_their_own_data(objective: str, data: Any, toy_world: ToyWorld, tmp_path: Path) -> None:
    training = changed(toy_world.config.training, {"objective": objective})
    result = run(toy_world.config.model_copy(update={"training": training, "rounds": 1}), tmp_path)
    table = data.load(tmp_path / "round-000" / f"{data.what}.parquet")
    assert result.rounds[0]["training"]["objective"] == objective
    assert result.rounds[0][data.what] == len(table)
    assert result.rounds[0]["training"]["rows"] == (table.lists if data is Siblings else len(table))


def test_nothing_to_learn_keeps_the_policy(toy_world: ToyWorld, tmp_path: Path) -> None:
    preferences = toy_world.config.preferences.model_copy(update={"min_gap": 10.0})
    config = toy_world.config.model_copy(update={"preferences": preferences, "rounds": 1})
    result = run(config, tmp_path)
    assert not result.rounds[0]["accepted"]
    assert result.policy == config.model
    assert "nothing to learn" in read_json(tmp_path / "round-000" / "training" / "skipped.json")["reason"]
    assert result.rounds[0]["against_baseline"]["difference"]["value"] == 0.0


def test_a_round_that_hurts_is_rolled_back(toy_world: ToyWorld, tmp_path: Path) -> None:
    # A learning rate a hundred times too high destroys the policy; the development problems show it.
    training = changed(toy_world.config.training, {"optimiser.lr": 0.5, "optimiser.max_grad_norm": None})
    config = toy_world.config.model_copy(update={"training": training, "development": 24, "problems_per_round": 8})
    result = run(config, tmp_path)
    hurt, after = result.rounds
    assert hurt["development"]["p_value"] < 0.05
    assert not hurt["accepted"]
    assert result.policy == config.model
    # The second round started again from the start, not from the ruin.
    assert after["search"]["first_sample_accuracy"] > 0


def test_replay_trains_on_the_rounds_before_too(undisturbed: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    run(toy_world.config.model_copy(update={"replay": 1}), tmp_path)
    first, second = (tmp_path / f"round-00{index}" for index in range(2))
    assert not (first / "training" / "pairs.parquet").exists()
    mixed = Pairs.load(second / "training" / "pairs.parquet")
    both = [Pairs.load(place / "pairs.parquet") for place in (first, second)]
    assert mixed.table == Pairs.concatenate(both).table
    assert read_json(second / "training" / "summary.json")["rows"] == len(mixed)
    # The first round is the same as without, the second is not.
    assert (
        fingerprints(first)["policy/model.safetensors"]
        == fingerprints(undisturbed / "round-000")["policy/model.safetensors"]
    )
    assert (
        fingerprints(second)["policy/model.safetensors"]
        != fingerprints(undisturbed / "round-001")["policy/model.safetensors"]
    )

"""A run trains judges on its own trees, and the next round's search asks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json
from mcts_dpo.common.settings import changed, dump_settings, load_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.judges import ProcessJudge, ValueJudge, search_rewards
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import Solutions, Steps
from mcts_dpo.rewards import OutcomeSettings, ValueModelSettings
from mcts_dpo.rewards.process import ProcessSettings
from mcts_dpo.search import Forest
from tests.conftest import ToyWorld
from tests.pipeline.test_rounds import fingerprints

RUN: dict[str, Any] = {"model": "m", "train": {"source": "a"}, "test": {"source": "b"}}


def test_a_judge_keeps_its_learning_rate_and_is_written_and_read() -> None:
    given = RUN | {"judges": ["value", {"kind": "process", "weight": 0.5, "training": {"data": {"epochs": 3}}}]}
    config = load_settings(RunConfig, given, ["judges.process.training.threads=1"])
    value, process = config.judges
    assert isinstance(value, ValueJudge)
    assert isinstance(process, ProcessJudge)
    assert (value.training.optimiser.lr, process.training.optimiser.lr) == (1e-2, 1e-5)
    assert (process.training.data.epochs, process.training.threads) == (3, 1)
    own = changed(process, {"training.optimiser.lr": 0.5})
    assert own.training.optimiser.lr == 0.5
    assert load_settings(RunConfig, yaml.safe_load(dump_settings(config))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": {"weight": 0.5}}, r"value is now judges \(a list, with an entry \{kind: value, …\}\)"),
        ({"judges": ["value", "value"]}, "judges: .*'value' is given twice; accepted: each kind once"),
        ({"judges": ["oracle"]}, "judges.*'oracle'.*value.*process"),
        ({"judges": [{"kind": "process", "training": {"seed": 3}}]}, "judges.process.training.seed: set the run's own"),
    ],
)
def test_bad_judges_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_settings(RunConfig, RUN | changes)
    assert "\n" not in str(refused.value)


def test_an_entry_of_the_search_keeps_what_the_judge_does_not_say(tmp_path: Path) -> None:
    judges = (ValueJudge(weight=0.5), ProcessJudge(weight=2.0))
    given = (OutcomeSettings(), ProcessSettings(model="earlier", aggregate="min", weight=0.1, at="terminal"))
    assert search_rewards(given, judges, {}) == given
    found = search_rewards(given, judges, {"value": tmp_path / "v", "process": tmp_path / "p"})
    assert found == (
        OutcomeSettings(),
        ProcessSettings(model=str(tmp_path / "p"), aggregate="min", weight=2.0, at="all"),
        ValueModelSettings(path=tmp_path / "v", weight=0.5, at="terminal"),
    )


def test_judges_are_trained_in_each_round_and_asked_in_the_next(toy_world: ToyWorld, tmp_path: Path) -> None:
    training = {"threads": 1, "optimiser": {"lr": 1e-3}, "data": {"epochs": 2}}
    judges = [{"kind": "process", "weight": 0.5, "training": training}, {"kind": "self_evaluation", "weight": 0.25}]
    changes = {"baseline": False, "problems_per_round": 12, "training.self_evaluation.min_samples": 1}
    config = changed(toy_world.config, {"judges": judges, **changes})
    result = run(config, tmp_path / "a")
    for index, metrics in enumerate(result.rounds):
        place = tmp_path / "a" / f"round-{index:03d}"
        assert metrics["steps"] == len(Steps.load(place / "steps.parquet")) > 0
        assert metrics["judges"]["process"]["cross_entropy"] > 0
        assert read_json(place / "process" / "process_reward.json")["family"] == "mcts_dpo"
        assert metrics["training"]["last"]["self_evaluation"] > 0
        assert len(Solutions.load(place / "training" / "questions.parquet")) > 0
        (forest, *_) = [Forest.load(shard) for shard in sorted((place / "trees").glob("*.parquet"))]
        rewards = forest.settings["search"]["rewards"]
        if index == 0:
            assert [reward["kind"] for reward in rewards] == ["outcome"]
            continue
        assert rewards[1]["model"] == str(tmp_path / "a" / "round-000" / "process")
        assert (rewards[2]["kind"], rewards[2]["weight"], rewards[2]["at"]) == ("self_evaluation", 0.25, "all")
        for kind in ("process", "self_evaluation"):
            scores = forest.scores[kind][forest.depth > 0]
            assert not np.isnan(scores).any()
            assert scores.min() >= 0
            assert scores.max() <= 1
            assert len(np.unique(scores)) > 1
    # A run that was killed before the judge of its last round is trained ends in the same bytes.
    before = fingerprints(tmp_path / "a")
    place = tmp_path / "a" / "round-001"
    for stage in ("process", "evaluate"):
        (place / "stages" / f"{stage}.json").unlink()
    for path in sorted((place / "process").iterdir()):
        path.unlink()
    (place / "process").rmdir()
    run(config, tmp_path / "a")
    assert fingerprints(tmp_path / "a") == before

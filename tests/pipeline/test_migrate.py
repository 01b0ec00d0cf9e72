"""Settings of the first edition in today's names."""

from __future__ import annotations

from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.migrate import migrated

RUN: dict[str, Any] = {"model": "m", "train": {"source": "a"}, "test": {"source": "b"}}


def loaded(old: dict[str, Any]) -> RunConfig:
    given = RUN | old
    with pytest.raises(InputError):
        load_settings(RunConfig, given)
    return load_settings(RunConfig, migrated(given, "old.yaml"))


def test_rewards_become_a_list() -> None:
    search = loaded(
        {
            "search": {
                "schedule": "events",
                "faithful": {"reference_child": True, "root_twice": False},
                "noise": {"per_rollout": 0.25, "per_answer": 0.0},
                "self_evaluation": {"weight": 0.5, "at": "all", "hint": True},
                "value_model": {"path": "v", "weight": 2.0, "at": "terminal"},
            }
        }
    ).search
    assert (search.schedule, search.reference_child) == ("asynchronous", True)
    outcome, judged, value = (one.model_dump(mode="json") for one in search.rewards)
    assert (outcome["kind"], outcome["noise_per_rollout"]) == ("outcome", 0.25)
    assert (judged["kind"], judged["weight"], judged["at"], judged["hint"]) == ("self_evaluation", 0.5, "all", True)
    assert (value["kind"], value["path"], value["weight"]) == ("value_model", "v", 2.0)


def test_what_asked_nothing_is_no_reward() -> None:
    old = {"noise": {"per_rollout": 0.0, "per_answer": 0.0}, "self_evaluation": {"weight": 0.0}, "value_model": None}
    assert loaded({"search": old}).search == RunConfig.model_validate(RUN).search


def test_training_is_in_parts_and_keeps_what_its_objective_has() -> None:
    flat = {
        "objective": "kto", "beta": None, "desirable_weight": 2.0, "flip_rate": 0.1, "preference_weight": 0.3,
        "lr": 1e-4, "batch_size": 7, "checkpoint_updates": 3, "regression_weight": 0.5, "dtype": "float32",
    }  # fmt: skip
    for config in (loaded({"training": flat}).training, loaded({"value": {"training": flat}}).judges[0].training):
        own = config.objective.model_dump()
        assert (own["kind"], own["desirable_weight"], own["preference_weight"]) == ("kto", 2.0, 0.3)
        assert (config.optimiser.lr, config.data.batch_size, config.checkpoint.updates) == (1e-4, 7, 3)
        assert (config.value.regression_weight, config.dtype) == (0.5, "float32")


def test_what_is_todays_stays() -> None:
    objective = {"kind": "ipo", "beta": 0.5}
    today = RUN | {"search": {"rewards": [{"kind": "outcome"}]}, "training": {"objective": objective}}
    assert migrated(today, "today.yaml") == today


def test_a_removed_switch_that_is_on_is_refused() -> None:
    with pytest.raises(InputError, match=r"old\.yaml: search\.faithful\.root_twice: true was removed .*: false"):
        migrated({"search": {"faithful": {"root_twice": True}}}, "old.yaml")

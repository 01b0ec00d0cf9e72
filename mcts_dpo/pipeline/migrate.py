"""Settings of the first edition in today's names: `mcts-dpo settings --migrate FILE`.

In: the mapping of a config file. Out: the same settings under today's names. Nothing is guessed: a setting that has no
name today is refused, and the error names it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.training.objectives.registry import objective_named
from mcts_dpo.training.settings import DEFAULT_OBJECTIVE, TrainingSettings

_SCHEDULES = {"waves": "synchronous", "events": "asynchronous"}


def migrated(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`config` with every setting of the first edition under its name of today. Today's settings stay as they are.

    where: the file, for messages. Raises InputError for a switch that was removed and is on.
    """
    found = copy.deepcopy(dict(config))
    if isinstance(found.get("search"), dict):
        found["search"] = _search(found["search"], where)
    if isinstance(found.get("training"), dict):
        found["training"] = _training(found["training"])
    value = found.pop("value", None)
    if isinstance(value, dict):
        if isinstance(value.get("training"), dict):
            value["training"] = _training(value["training"])
        found["judges"] = [{"kind": "value"} | value]
    return found


def _search(search: dict[str, Any], where: str) -> dict[str, Any]:
    if search.get("schedule") in _SCHEDULES:
        search["schedule"] = _SCHEDULES[search["schedule"]]
    for name, on in (search.pop("faithful", None) or {}).items():
        if name == "reference_child":
            search[name] = on
        elif on:
            raise InputError(
                f"{where}: search.faithful.{name}: true was removed (docs/xie2024.md); accepted: false, to migrate"
            )
    old = {name: search.pop(name, None) for name in ("noise", "self_evaluation", "value_model")}
    if any(old.values()) and "rewards" not in search:
        search["rewards"] = _rewards(**old)
    return search


def _rewards(
    noise: dict[str, Any] | None, self_evaluation: dict[str, Any] | None, value_model: dict[str, Any] | None
) -> list[dict[str, Any]]:
    rewards = [{"kind": "outcome"} | {f"noise_{name}": rate for name, rate in (noise or {}).items()}]
    if self_evaluation and self_evaluation.get("weight"):
        rewards.append({"kind": "self_evaluation"} | self_evaluation)
    if value_model:
        rewards.append({"kind": "value_model"} | value_model)
    return rewards


def _training(training: dict[str, Any]) -> dict[str, Any]:
    objective = training.get("objective", DEFAULT_OBJECTIVE)
    if isinstance(objective, str):
        training["objective"] = {"kind": objective}
    own = objective_named(training["objective"].get("kind", DEFAULT_OBJECTIVE)).settings.model_fields
    for name in [name for name in training if name in TrainingSettings.moved]:
        value, (group, _, leaf) = training.pop(name), TrainingSettings.moved[name].partition(".")
        # The first edition wrote every objective's settings into every file; null meant the objective's default.
        if group == "objective" and (leaf not in own or value is None):
            continue
        training.setdefault(group, {}).setdefault(leaf, value)
    return training

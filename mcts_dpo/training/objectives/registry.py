"""Objectives by name: those of this folder, and those that other modules register."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import nearest
from mcts_dpo.training.objectives.base import Objective, ObjectiveSettings

_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN = tuple(
    sorted({one.name for one in iter_modules([str(Path(__file__).parent)])} - {"base", "common", "registry"})
)
"""The names of the objectives of this folder. Each is imported when it is first asked for."""
_REGISTERED: dict[str, Objective] = {}


def register_objective(objective: Objective) -> None:
    """Add an objective, so that `training.objective` can name it.

    Raises ValueError for a name that is taken, and for settings whose `kind` has no default.
    """
    name = objective.name
    if objective.settings.model_fields["kind"].is_required():
        raise ValueError(f"{objective.settings.__name__}.kind: needs a default, the objective's name, such as 'ipo'")
    if name in _REGISTERED or (name in BUILT_IN and objective.module != f"{_PACKAGE}.{name}"):
        raise ValueError(f"the objective {name!r} exists already")
    _REGISTERED[name] = objective


def objective_names() -> tuple[str, ...]:
    """The names of all objectives, those of this folder first."""
    return (*BUILT_IN, *(name for name in _REGISTERED if name not in BUILT_IN))


def objective_named(name: str) -> Objective:
    """The objective of this name. Raises InputError with the nearest name for any other."""
    if name in BUILT_IN and name not in _REGISTERED:
        import_module(f"{_PACKAGE}.{name}")
    if name not in _REGISTERED:
        close = nearest(name, objective_names())
        hint = f"; did you mean {close!r}?" if close else ""
        accepted = ", ".join(objective_names())
        raise InputError(f"training.objective: {name!r} is not an objective{hint} (accepted: {accepted})")
    return _REGISTERED[name]


def objective_settings(name: str, **values: Any) -> ObjectiveSettings:
    """An objective's settings, with defaults for what is not given: `objective_settings("ipo", beta=0.5)`.

    Raises InputError for an unknown name, and pydantic's ValidationError for a setting that the objective lacks.
    """
    return objective_named(name).settings(**values)


def module_of(name: str) -> str | None:
    """The module that another process must import to know the objective; None for one of this folder.

    Raises InputError for an objective that no other process can know, because a program registered it, not a module.
    """
    module = objective_named(name).module
    if module == "__main__":
        raise InputError(
            f"training.objective: {name!r} was registered by the program that is running (accepted where several "
            "processes train: an objective that a module registers, see --with)"
        )
    return None if name in BUILT_IN else module

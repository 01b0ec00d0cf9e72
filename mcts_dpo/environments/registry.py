"""The environments by name: those of this folder, and those that a module given by `--with` registers.

To add an environment, write a settings class and a function that makes the environment, and call
`register_environment` with both. `search.environment` then accepts its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

from pydantic import SerializeAsAny

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.environments.base import Environment, EnvironmentSettings

_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN = tuple(
    sorted({one.name for one in iter_modules([str(Path(__file__).parent)])} - {"base", "registry", "replying"})
)
"""The kinds of this folder. Each is imported when it is first asked for."""


@dataclass(frozen=True, slots=True)
class EnvironmentKind:
    """One registered kind: the class of its settings, and what makes it."""

    settings: type[EnvironmentSettings]
    make: Callable[[Any], Environment]


_KINDS: dict[str, EnvironmentKind] = {}


def register_environment(settings: type[EnvironmentSettings], make: Callable[[Any], Environment]) -> None:
    """Add a kind of environment, so that `search.environment` accepts it.

    Args:
        settings: the class of its settings; the default of its `kind` is the name.
        make: settings → the environment, once per process. Raises InputError for settings that cannot be used.

    Raises:
        ValueError: the name is taken, or `kind` has no default.
    """
    if settings.model_fields["kind"].is_required():
        raise ValueError(f"{settings.__name__}.kind: needs a default, the environment's name, such as 'python'")
    name = str(settings.model_fields["kind"].default)
    if name in _KINDS or (name in BUILT_IN and settings.__module__ != f"{_PACKAGE}.{name}"):
        raise ValueError(f"the environment {name!r} is registered already")
    _KINDS[name] = EnvironmentKind(settings, make)


def environment_names() -> tuple[str, ...]:
    """The names of all kinds, those of this folder first."""
    return (*BUILT_IN, *(name for name in _KINDS if name not in BUILT_IN))


def environment_kind(name: str) -> EnvironmentKind:
    """The kind of this name, one of `environment_names`."""
    if name not in _KINDS:
        import_module(f"{_PACKAGE}.{name}")
    return _KINDS[name]


EnvironmentEntry = Annotated[
    SerializeAsAny[EnvironmentSettings], Kinds(environment_names, lambda name: environment_kind(name).settings)
]
"""An environment as settings hold it: `{kind: NAME, …}`, or NAME alone."""

"""The allocation rules by name: those of this folder, and those that a module given by `--with` registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

from pydantic import SerializeAsAny

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.search.allocation.base import Allocation, AllocationSettings

_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN = tuple(sorted({one.name for one in iter_modules([str(Path(__file__).parent)])} - {"base", "registry"}))
"""The kinds of this folder. Each is imported when it is first asked for."""


@dataclass(frozen=True, slots=True)
class AllocationKind:
    """One registered kind: the class of its settings, and what makes the rule of one tree from them."""

    settings: type[AllocationSettings]
    make: Callable[[Any], Allocation]


_KINDS: dict[str, AllocationKind] = {}


def register_allocation(settings: type[AllocationSettings], make: Callable[[Any], Allocation]) -> None:
    """Add a rule, so that `search.allocation` accepts it.

    Args:
        settings: the class of its settings; the default of its `kind` is the name.
        make: settings → the rule of one tree.

    Raises:
        ValueError: the name is taken, or `kind` has no default.
    """
    if settings.model_fields["kind"].is_required():
        raise ValueError(f"{settings.__name__}.kind: needs a default, the rule's name, such as 'filter'")
    name = str(settings.model_fields["kind"].default)
    if name in _KINDS or (name in BUILT_IN and settings.__module__ != f"{_PACKAGE}.{name}"):
        raise ValueError(f"the allocation rule {name!r} is registered already")
    _KINDS[name] = AllocationKind(settings, make)


def allocation_names() -> tuple[str, ...]:
    """The names of all rules, those of this folder first."""
    return (*BUILT_IN, *(name for name in _KINDS if name not in BUILT_IN))


def _kind(name: str) -> AllocationKind:
    if name not in _KINDS:
        import_module(f"{_PACKAGE}.{name}")
    return _KINDS[name]


AllocationEntry = Annotated[
    SerializeAsAny[AllocationSettings], Kinds(allocation_names, lambda name: _kind(name).settings)
]
"""A rule as settings hold it: `{kind: NAME, …}`, or NAME alone."""


def make_allocation(settings: AllocationSettings) -> Allocation:
    """The rule of one tree."""
    return _kind(settings.kind).make(settings)

"""The rewards by name: those of this folder, and those that a module given by `--with` registers.

To add a reward, write a settings class and a function that makes the reward, and call `register_reward` with both.
`search.rewards` then accepts its kind, and trees get a column for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

from pydantic import SerializeAsAny

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.rewards.base import Maker, Reward, RewardContext, RewardSettings

_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN = tuple(
    sorted(
        {one.name for one in iter_modules([str(Path(__file__).parent)])}
        - {"base", "combine", "registry", "verification"}
    )
)
"""The kinds of this folder. Each is imported when it is first asked for."""


@dataclass(frozen=True, slots=True)
class RewardKind:
    """One registered kind: the class of its settings, and what makes it."""

    settings: type[RewardSettings]
    make: Maker


_KINDS: dict[str, RewardKind] = {}


def register_reward(settings: type[RewardSettings], make: Maker) -> None:
    """Add a kind of reward, so that `search.rewards` accepts it.

    Args:
        settings: the class of its settings; the default of its `kind` is the name.
        make: (settings, context) → reward, once per problem.

    Raises:
        ValueError: the name is taken, or `kind` has no default.
    """
    if settings.model_fields["kind"].is_required():
        raise ValueError(f"{settings.__name__}.kind: needs a default, the reward's name, such as 'length'")
    name = str(settings.model_fields["kind"].default)
    if name in _KINDS or (name in BUILT_IN and settings.__module__ != f"{_PACKAGE}.{name}"):
        raise ValueError(f"the reward {name!r} is registered already")
    _KINDS[name] = RewardKind(settings, make)


def reward_names() -> tuple[str, ...]:
    """The names of all kinds, those of this folder first."""
    return (*BUILT_IN, *(name for name in _KINDS if name not in BUILT_IN))


def reward_kind(name: str) -> RewardKind:
    """The kind of this name, one of `reward_names`."""
    if name not in _KINDS:
        import_module(f"{_PACKAGE}.{name}")
    return _KINDS[name]


RewardEntry = Annotated[SerializeAsAny[RewardSettings], Kinds(reward_names, lambda name: reward_kind(name).settings)]
"""A reward as settings hold it: `{kind: NAME, …}`, or NAME alone."""


def make_rewards(entries: Sequence[RewardSettings], context: RewardContext) -> tuple[Reward, ...]:
    """The rewards of one problem, in order; those without weight are left out. Raises InputError as their makers do."""
    return tuple(reward_kind(entry.kind).make(entry, context) for entry in active(entries))


def active(entries: Sequence[RewardSettings]) -> tuple[RewardSettings, ...]:
    """The entries that have weight."""
    return tuple(entry for entry in entries if entry.weight > 0)


def judges_steps(entries: Sequence[RewardSettings]) -> bool:
    """Whether one of the entries judges every step without the reference answer."""
    return any(entry.judges and entry.at == "all" and not entry.needs_reference for entry in active(entries))


def with_entry(entries: Sequence[RewardSettings], entry: RewardSettings) -> tuple[RewardSettings, ...]:
    """The entries with one of them replaced, by its kind; a new kind is added at the end."""
    kinds = [one.kind for one in entries]
    if entry.kind not in kinds:
        return (*entries, entry)
    return tuple(entry if one.kind == entry.kind else one for one in entries)

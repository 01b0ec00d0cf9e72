"""The environments by name. The only one is "none", which answers no step and costs nothing."""

from __future__ import annotations

from mcts_dpo.common.settings import nearest
from mcts_dpo.environments.base import Environment

_ENVIRONMENTS: dict[str, Environment | None] = {"none": None}


def environment_named(name: str) -> Environment | None:
    """The environment of this name; None for "none". Raises ValueError, with the nearest name, for any other."""
    if name not in _ENVIRONMENTS:
        close = nearest(name, tuple(_ENVIRONMENTS))
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"is not one of the choices{hint} (accepted: {', '.join(_ENVIRONMENTS)})")
    return _ENVIRONMENTS[name]


def registered_environment(name: str) -> str:
    """The name, if it is an environment's. Raises ValueError as `environment_named` does."""
    environment_named(name)
    return name

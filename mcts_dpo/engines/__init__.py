"""Engines: token sequences in, sampled tokens with log-probabilities out. `base` holds the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines.base import Completion, Engine, Finish, Occupancy, Request, Sample, Usage
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
]


def load_engine(model: str | Path, settings: EngineSettings | None = None, **overrides: Any) -> Engine:
    """The engine that `settings` name, running `model`: a hub name, a Hugging Face directory, or a .gguf file.

    overrides: single settings by name, e.g. `load_engine("model", slots=32)`; they win over `settings`.
    The weights go to the first CUDA device if there is one. Raises InputError for a model that cannot be loaded
    or run.
    """
    given = (settings or EngineSettings()).model_dump()
    chosen = load_settings(EngineSettings, given | overrides)
    # Imported here: torch and the model classes take seconds, and many users of `Request` never run a model.
    if chosen.kind == "vllm":
        from mcts_dpo.engines.vllm.engine import VllmEngine

        return VllmEngine(model, chosen)
    if chosen.kind == "openai":
        from mcts_dpo.engines.openai import OpenAIEngine

        return OpenAIEngine(model, chosen)
    import torch

    from mcts_dpo.engines.transformers.engine import TransformersEngine
    from mcts_dpo.models.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersEngine(load_model(model, chosen.dtype, device), tokenizer, chosen)

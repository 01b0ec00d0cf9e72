"""`search.generation_config: model`: sampling as the model's own `generation_config.json` asks for it.

In: search settings and a model. Out: the settings, in which the file's values replace those that the user did not set.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.engines.shaping import refuse_shape
from mcts_dpo.search.settings import SearchSettings

_log = logging.getLogger(__name__)

TAKEN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""The settings that are taken from the file. What the file does not say, or says is null, keeps its value."""


def own_sampling(search: SearchSettings, model: str | Path, engine: str) -> SearchSettings:
    """The settings with the model's own sampling if they ask for it; otherwise as they are.

    model: a hub name, a Hugging Face directory, or an adapter (then its base model). engine: the kind of engine.

    Raises InputError for a model without the file, for a value that is out of range, and for a setting that the engine
    does not have.
    """
    if search.generation_config == "none":
        return search
    from mcts_dpo.models.loading import generation_config  # imported late, because it imports torch

    stored = generation_config(model)
    if stored is None:
        raise InputError(
            f"search.generation_config: model, but {model} has no generation_config.json; accepted: none, or a model "
            "with this file"
        )
    taken = {name: stored[name] for name in TAKEN if stored.get(name) is not None}
    taken = {name: value for name, value in taken.items() if name not in search.model_fields_set}
    load_settings(SearchSettings, taken, name=f"{model}: generation_config.json")
    found = search.model_copy(update=taken)
    refuse_shape(found, engine_kind(engine).sampling, engine)
    told = ", ".join(f"{name} {value}" for name, value in taken.items()) or "nothing that is not set already"
    _log.warning("sampling of %s: %s (from its generation_config.json)", model, told)
    return found

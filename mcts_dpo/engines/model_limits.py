"""What an engine must know of a model: its context, its end tokens, and the shapes of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.endings import usual_ends

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def weight_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name."""
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def refuse_other_shapes(
    here: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]], checkpoint: str | Path
) -> None:
    """Raise InputError, naming a weight, unless the checkpoint's weights have the shapes of the engine's.

    here, there: shape by name, of the engine's weights and of the checkpoint's.
    """
    for name in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(name), there.get(name)
        if ours != theirs:
            raise InputError(
                f"{checkpoint}: another architecture than the engine's: {name} is {theirs or 'missing'}, "
                f"in the engine it is {ours or 'missing'}"
            )


def longest_sequence(config: PretrainedConfig, asked: int | None) -> int:
    """The context in tokens: what the model was made for, or less if `asked`. Raises InputError if more is asked."""
    most = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        most = min(most, int(window))  # within its window sliding attention is plain attention
    if asked is not None and asked > most:
        raise InputError(f"engine.context: {asked} exceeds what the model was made for (accepted: 2 to {most})")
    return asked or most


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> NDArray[np.bool_]:
    """bool [vocabulary]: the tokens that end a sequence, according to generation config, config, tokenizer, or name."""
    ids: set[int] = set()
    for holder in (model.generation_config, model.config.get_text_config(), tokenizer):
        given = getattr(holder, "eos_token_id", None)
        ids.update([given] if isinstance(given, int) else given or ())
    ids.update(usual_ends(tokenizer))
    table = np.zeros(vocabulary, np.bool_)
    table[[i for i in ids if 0 <= i < vocabulary]] = True
    return table

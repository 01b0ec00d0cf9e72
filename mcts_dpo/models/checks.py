"""Checks that a loaded model is the one that its files describe: possible sizes, no tensor missing.

transformers and PEFT fill missing tensors with random numbers and continue. The result looks like a bad policy. These
checks refuse it. In: configurations and reports of a loader. Out: nothing, or InputError with one line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mcts_dpo.common.errors import InputError

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
"""Fields of a configuration that count something. A configuration need not have all of them."""
MOST_LAYERS = 10_000
_SMALL_TERMS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
"""Small constants that a normalisation adds before it takes a root."""


def require_possible(config: Any, where: str) -> None:
    """Raise InputError, naming the field, for a configuration that no model can have.

    Examples: no layers, or heads that do not divide the width. config: of transformers; for a model of several parts,
    its text part is checked. where: the model, for the message.
    """
    text = config.get_text_config()
    sizes = require_sizes({name: getattr(text, name, None) for name in _SIZES}, where)
    for name in _SMALL_TERMS:
        term = getattr(text, name, None)
        if isinstance(term, int | float) and not 0 <= term < 1:
            raise InputError(f"{where}: config.json: {name}: {term} (accepted: a number from 0 to 1)")
    rotation = getattr(text, "rope_parameters", None)
    base = rotation.get("rope_theta") if isinstance(rotation, dict) else None
    if isinstance(base, int | float) and not 0 < base < float("inf"):
        raise InputError(f"{where}: config.json: rope_theta: {base} (accepted: a number above 0)")
    heads, width = sizes.get("num_attention_heads"), sizes.get("hidden_size")
    if heads and width and not sizes.get("head_dim") and width % heads:
        raise InputError(f"{where}: config.json: hidden_size: {width} (accepted: a multiple of the {heads} heads)")
    shared = sizes.get("num_key_value_heads")
    if heads and shared and heads % shared:
        raise InputError(f"{where}: config.json: num_key_value_heads: {shared} (accepted: a divisor of {heads})")


def require_sizes(fields: Mapping[str, Any], where: str) -> dict[str, int]:
    """The sizes among the fields of a configuration. Raises InputError, naming the field, for an impossible one."""
    sizes = {name: value for name in _SIZES if isinstance(value := fields.get(name), int | float)}
    for name, value in sizes.items():
        most = MOST_LAYERS if name == "num_hidden_layers" else 2**31 - 1
        if isinstance(value, bool) or value != value or not 1 <= value <= most or value != int(value):
            raise InputError(f"{where}: config.json: {name}: {value} (accepted: an integer from 1 to {most})")
    return {name: int(value) for name, value in sizes.items()}


def require_complete(missing: Collection[str], where: str) -> None:
    """Raise InputError, naming the tensors, if a model's files lack tensors that it needs."""
    if missing:
        raise InputError(f"{where}: the files lack {named(missing)}, without which the model would hold random numbers")


def require_whole_adapter(wanted: Collection[str], found: Collection[str], where: str) -> None:
    """Raise InputError unless an adapter's file holds exactly the tensors that its configuration and base model need.

    wanted, found: names of tensors, as PEFT writes them.
    """
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputError(f"{where}: the adapter's file lacks {named(missing)}")
    foreign = sorted(name for name in set(found) - set(wanted) if ".lora_" in name)
    if foreign:
        raise InputError(f"{where}: the adapter's file holds {named(foreign)}, for which its base model has no place")


def named(names: Collection[str]) -> str:
    """Tensors by name, the first three and how many more."""
    first = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the tensors {', '.join(first)}{more}" if len(names) > 1 else f"the tensor {first[0]}"

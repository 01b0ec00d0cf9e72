"""Writes a trunk and a linear head as transformers' …ForTokenClassification, which other tools load.

In: a causal language model and a head on its last states. Out: a directory for
`AutoModelForTokenClassification.from_pretrained`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForTokenClassification

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import quiet_transformers


def require_classifier(trunk: Any, labels: Mapping[int, str]) -> None:
    """Raise InputError unless transformers has a token classifier with a head `score` on exactly this trunk.

    trunk: a causal language model. labels: the names of the head's outputs.
    """
    name = type(trunk).__name__
    accepted = "accepted: an architecture with a …ForTokenClassification whose head is `score`, as Llama and Qwen have"
    try:
        with torch.device("meta"):
            found = _classifier(trunk, labels)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{name}: transformers has no token classifier for it ({reason}; {accepted})") from None
    ours = {key: tensor.shape for key, tensor in trunk.base_model.state_dict().items()}
    theirs = {key: tensor.shape for key, tensor in found.base_model.state_dict().items()}
    if not isinstance(getattr(found, "score", None), nn.Linear) or set(theirs) - set(ours):
        raise InputError(f"{name}: {type(found).__name__} has another head or another trunk ({accepted})")


def save_classifier(folder: Path, trunk: Any, head: nn.Linear, labels: Mapping[int, str], stored: torch.dtype) -> None:
    """Write `trunk` with `head` ([labels, width], with a bias) into `folder`, which exists.

    The trunk is written in the dtype `stored`, the head in float32. Loaded in float32, the head is exactly the one
    that was trained. Do not use `trunk` afterwards.
    """
    for parameter in trunk.parameters():
        parameter.data = parameter.data.to(stored)
    with torch.random.fork_rng(devices=[]):
        found = _classifier(trunk, labels).to(stored)
    wanted = found.base_model.state_dict()
    state = {key: tensor for key, tensor in trunk.base_model.state_dict().items() if key in wanted}
    found.base_model.load_state_dict(state)
    found.score = copy.deepcopy(head).float().cpu()
    with quiet_transformers():
        found.save_pretrained(folder)


def _classifier(trunk: Any, labels: Mapping[int, str]) -> Any:
    """A new token classifier of the trunk's configuration."""
    config = copy.deepcopy(trunk.config)
    config.id2label = dict(labels)
    config.label2id = {name: number for number, name in labels.items()}
    return AutoModelForTokenClassification.from_config(config, attn_implementation="eager")

"""One forward pass over a packed tree of sequences: each unique token is computed once.

In: a transformers decoder, and a pack (the nodes of a trie, `models.trie`). Out: the last state of each node, equal to
the one that its sequence gives alone. `why_not_packable` finds the models for which it is not equal, `why_not_readable`
those whose logits are more than a linear head on these states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.attention import tree as attention
from mcts_dpo.models.trie import Trie

ATTENTIVE = {"full_attention", "sliding_attention"}
"""Kinds of layers (`layer_types` of a configuration) in which a token meets others by attention alone."""


@dataclass(frozen=True, slots=True)
class Pack:
    """The L unique tokens of some sequences, depth first.

    input_ids:    [1, L] int64.
    position_ids: [1, L] int64, depth in tokens: what the position would be in the sequence alone.
    end:          [L] int64 in (k, L]: q sees k ⇔ k ≤ q < end[k].
    """

    input_ids: Tensor
    position_ids: Tensor
    end: Tensor


def pack_of(trie: Trie, device: torch.device) -> Pack:
    """The pack of a trie's nodes."""
    ids, depths = torch.from_numpy(trie.tokens.astype("int64")), torch.from_numpy(trie.depths)
    return Pack(ids[None].to(device), depths[None].to(device), torch.from_numpy(trie.end).to(device))


def packed_states(model: Any, pack: Pack) -> Tensor:
    """[1, L, width]: the model's last states of a pack.

    The model's attention is set to `attention.NAME` for good: the layers that gradient checkpointing computes again
    need it too. Without a tree it is transformers' own SDPA.
    """
    if model.config._attn_implementation != attention.NAME:
        model.set_attn_implementation(attention.NAME)
    states: Tensor = model.base_model(
        input_ids=pack.input_ids,
        position_ids=pack.position_ids,
        # A mask of four dimensions is handed through untouched: transformers builds none of its own.
        attention_mask=pack.end[None, None, None],
        tree=attention.Tree(pack.end, pack.position_ids[0]),
        use_cache=False,
    ).last_hidden_state
    return states


def why_not_packable(model: Any, tokens: Tensor) -> str | None:
    """Why a token of a pack would not see what it sees in its sequence alone; None if it does.

    Names models that carry a state from token to token (linear attention, state spaces, convolutions), that attend in
    chunks, or whose attention transformers cannot replace; and any other model that gives other states for two
    branches in a pack than for each alone.

    tokens: [1, ≥ 1] int64 ids to try it on.
    """
    name = type(model).__name__
    config = model.config.get_text_config()
    strange = sorted(set(getattr(config, "layer_types", None) or ()) - ATTENTIVE)
    if strange or getattr(model, "_is_stateful", False):
        kind = f"{strange[0]} layers" if strange else "a state that runs from token to token"
        return f"{name} has {kind}, which would mix the branches of a tree"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not allow its attention to be replaced"
    ids = tokens[0].repeat(3)
    stem, size = len(tokens[0]), len(ids)
    one, other = ids[: 2 * stem], torch.cat([ids[:stem], ids[2 * stem :].flip(0)])
    end = torch.full((size,), size, device=ids.device)
    end[stem : 2 * stem] = 2 * stem
    indices = torch.arange(size, device=ids.device)
    positions = torch.where(indices < 2 * stem, indices, indices - stem)
    pack = Pack(torch.cat([one, other[stem:]])[None], positions[None], end)
    with torch.no_grad():
        try:
            together = packed_states(model, pack)[0]
        except InputError as error:
            return f"{name}: {error}"
        alone = [model.base_model(input_ids=each[None], use_cache=False).last_hidden_state[0] for each in (one, other)]
    expected = torch.cat([alone[0], alone[1][stem:]])
    # Half precision rounds more coarsely, and differently in packs of different sizes.
    tolerance = 1e-3 if expected.dtype in {torch.float32, torch.float64} else 0.1
    if (together - expected).abs().max() > tolerance * expected.abs().max():
        return f"{name} gives other states in a pack than alone"
    return None


def why_not_readable(model: Any, tokens: Tensor) -> str | None:
    """Why a model's logits are not its head applied to its last states; None if they are.

    Names models that scale or cap their logits, and encoder–decoders. tokens: [1, ≥ 1] int64 ids to try it on.
    """
    name = type(model).__name__
    with torch.no_grad():
        try:
            states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            ours = model.get_output_embeddings()(states)
            theirs = model(input_ids=tokens, use_cache=False).logits
        except (AttributeError, TypeError, ValueError) as error:
            return f"{name}: not a causal language model that can be read ({error})"
    if ours.shape != theirs.shape or not torch.allclose(ours.float(), theirs.float(), rtol=1e-3, atol=1e-3):
        return f"{name}: its logits are not a linear readout of its last states"
    return None

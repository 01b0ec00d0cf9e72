"""Attention of a flat batch over keys and values in one pool, registered with transformers.

A step runs tokens of many sequences: [tokens], without padding, some the next token of a running sequence, some the
prefix of a new one. Each token has a position in the pool where its keys and values are written, a row of the table
that lists the pool positions of its whole sequence in order, and a length: how many of them it sees, itself included.
Sequences that share a prefix list the same positions, even when the prefix is computed in the same step, because each
layer writes before it reads.

Source: PagedAttention with blocks of one token, Kwon et al. 2023, arXiv 2309.06180.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, PretrainedConfig

from mcts_dpo.engines.transformers.kernels import attend, write

NAME = "mcts_dpo_pool"


@dataclass(slots=True)
class Pool:
    """Keys and values of every layer; one row per token.

    keys, values:   per layer, [key-value heads, positions, head width] on the model's device, its dtype.
    host:           per layer, numpy views of keys and values (bfloat16 as uint16) on a CPU, else empty.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    host: list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(slots=True)
class Step:
    """Where the tokens of one flat batch write and read.

    write:   int64 [tokens], pool position of each token, all different.
    rows:    int32 [tokens], row of `tables` of each token.
    lengths: int32 [tokens], how many entries of its row a token sees, ≥ 1.
    tables:  int32 [rows, longest], pool positions of each sequence in order.
    """

    pool: Pool
    write: NDArray[np.int64]
    rows: NDArray[np.int32]
    lengths: NDArray[np.int32]
    tables: NDArray[np.int32]


def key_value_shape(config: PretrainedConfig) -> tuple[int, int, int]:
    """(layers, key-value heads, head width) of a decoder."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def make_pool(config: PretrainedConfig, positions: int, dtype: torch.dtype, device: torch.device) -> Pool:
    """An empty pool. On a CPU the memory is only reserved: pages become real when first written."""
    layers, heads, width = key_value_shape(config)
    keys = [torch.empty(heads, positions, width, dtype=dtype, device=device) for _ in range(layers)]
    values = [torch.empty_like(k) for k in keys]
    for tensor in keys + values:
        tensor[:, 0] = 0  # padding reads position 0, and 0 · NaN would be NaN
    host = [(_host(k), _host(v)) for k, v in zip(keys, values, strict=True)] if device.type == "cpu" else []
    return Pool(keys, values, host)


def _host(tensor: torch.Tensor) -> NDArray[Any]:
    """A numpy view; bfloat16, which numpy lacks, as the uint16 that holds its bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def pool_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    step: Step,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: write this layer's keys and values, then attend over the pool.

    query [1, heads, tokens, width]; key, value [1, key-value heads, tokens, width]. Returns
    [1, tokens, heads, width] in query's dtype; the softmax and its sums are float32.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    pool = step.pool
    queries = query[0].transpose(0, 1)
    if pool.host:
        keys, values = pool.host[layer]
        write(_host(key[0]), step.write, keys)
        write(_host(value[0]), step.write, values)
        out = torch.empty(queries.shape, dtype=torch.float32)
        attend(
            queries.float().contiguous().numpy(), keys, values, step.tables, step.rows, step.lengths, scale, out.numpy()
        )
        return out.to(query.dtype)[None], None
    at = torch.from_numpy(step.write).to(query.device)
    pool.keys[layer].index_copy_(1, at, key[0])
    pool.values[layer].index_copy_(1, at, value[0])
    return gathered_attention(queries, step, layer, scale)[None], None


def gathered_attention(queries: torch.Tensor, step: Step, layer: int, scale: float) -> torch.Tensor:
    """The same in torch operations, for devices without the kernel: gather each token's keys, pad, attend.

    queries [tokens, heads, width] → [tokens, heads, width]. Works through the tokens in slices that bound the
    gathered memory; within a slice every token is a batch row, its query heads grouped over key-value heads.
    """
    keys, values = step.pool.keys[layer], step.pool.values[layer]
    tokens, heads, width = queries.shape
    kv_heads = keys.shape[0]
    out = torch.empty_like(queries)
    lengths = torch.from_numpy(step.lengths).to(queries.device)
    slice_tokens = max(1, 2**27 // (int(step.lengths.max()) * kv_heads * width * 4))
    for start in range(0, tokens, slice_tokens):
        end = min(tokens, start + slice_tokens)
        longest = int(step.lengths[start:end].max())
        positions = torch.from_numpy(step.tables[step.rows[start:end], :longest].astype(np.int64)).to(queries.device)
        visible = torch.arange(longest, device=queries.device)[None] < lengths[start:end, None]
        positions = torch.where(visible, positions, 0)
        attended = torch.nn.functional.scaled_dot_product_attention(
            queries[start:end].view(end - start, kv_heads, heads // kv_heads, width),
            keys[:, positions].transpose(0, 1),
            values[:, positions].transpose(0, 1),
            attn_mask=visible[:, None, None, :],
            scale=scale,
        )
        out[start:end] = attended.reshape(end - start, heads, width)
    return out


AttentionInterface.register(NAME, pool_attention)

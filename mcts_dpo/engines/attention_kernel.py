"""The compiled CPU loop of attention over a pool of keys and values. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.kernels import compiled, exponentials, share, top_of, total_of


@compiled
def write(tokens: Any, positions: Any, pool: Any) -> None:
    """pool[h, positions[i]] = tokens[h, i]; tokens [heads, n, width], pool [heads, all, width], of one dtype."""
    for h in range(tokens.shape[0]):
        for i in range(len(positions)):
            for d in range(tokens.shape[2]):
                pool[h, positions[i], d] = tokens[h, i, d]


def _attention_loop(half: bool) -> Callable[..., None]:
    """The loop for keys and values in float32, or (`half`) in bfloat16, whose bits come as uint16.

    One key-value head after the other, so that rows with a common prefix find its keys in the cache. Keys go four
    at a time and values eight: each load of a query, each load and store of a sum, serves that many tokens.
    """

    @compiled
    def run(
        queries: Any,
        keys: Any,
        values: Any,
        tables: Any,
        rows: Any,
        lengths: Any,
        scale: Any,
        out: Any,
        start: int,
        end: int,
    ) -> None:
        kv_heads = keys.shape[0]
        group = queries.shape[1] // kv_heads
        width = queries.shape[2]
        longest = 8
        for i in range(start, end):
            longest = max(longest, (lengths[i] + 7) // 8 * 8)
        at = np.empty(longest, np.int64)
        score = np.empty((group, longest), np.float32)
        weight = np.empty((group, longest), np.float32)
        weight_bits = weight.view(np.int32)
        wide = np.empty((8, width), np.float32)
        bits = wide.view(np.int32)
        query = np.empty((group, width), np.float32)
        total = np.empty((group, width), np.float32)
        for h in range(kv_heads):
            head_keys = keys[h]
            head_values = values[h]
            for i in range(start, end):
                length = lengths[i]
                padded = (length + 7) // 8 * 8
                row = tables[rows[i]]
                for t in range(padded):
                    at[t] = row[min(t, length - 1)]
                for g in range(group):
                    for d in range(width):
                        query[g, d] = queries[i, h * group + g, d] * scale
                        total[g, d] = 0
                for t in range(0, length, 4):
                    if half:
                        for j in range(4):
                            key = head_keys[at[t + j]]
                            for d in range(width):
                                bits[j, d] = np.int32(key[d]) << 16
                        k0, k1, k2, k3 = wide[0], wide[1], wide[2], wide[3]
                    else:
                        k0, k1 = head_keys[at[t]], head_keys[at[t + 1]]
                        k2, k3 = head_keys[at[t + 2]], head_keys[at[t + 3]]
                    for g in range(group):
                        s0 = s1 = s2 = s3 = np.float32(0)
                        for d in range(width):
                            q = query[g, d]
                            s0 += q * k0[d]
                            s1 += q * k1[d]
                            s2 += q * k2[d]
                            s3 += q * k3[d]
                        score[g, t], score[g, t + 1], score[g, t + 2], score[g, t + 3] = s0, s1, s2, s3
                for g in range(group):
                    seen = score[g, :length]
                    exponentials(seen, top_of(seen), np.float32(1), weight[g, :length], weight_bits[g, :length])
                    inverse = np.float32(1) / total_of(weight[g, :length])
                    for t in range(length):
                        weight[g, t] *= inverse
                    for t in range(length, padded):
                        weight[g, t] = 0
                for t in range(0, length, 8):
                    if half:
                        for j in range(8):
                            value = head_values[at[t + j]]
                            for d in range(width):
                                bits[j, d] = np.int32(value[d]) << 16
                        v0, v1, v2, v3 = wide[0], wide[1], wide[2], wide[3]
                        v4, v5, v6, v7 = wide[4], wide[5], wide[6], wide[7]
                    else:
                        v0, v1 = head_values[at[t]], head_values[at[t + 1]]
                        v2, v3 = head_values[at[t + 2]], head_values[at[t + 3]]
                        v4, v5 = head_values[at[t + 4]], head_values[at[t + 5]]
                        v6, v7 = head_values[at[t + 6]], head_values[at[t + 7]]
                    for g in range(group):
                        w0, w1, w2, w3 = weight[g, t], weight[g, t + 1], weight[g, t + 2], weight[g, t + 3]
                        w4, w5, w6, w7 = weight[g, t + 4], weight[g, t + 5], weight[g, t + 6], weight[g, t + 7]
                        for d in range(width):
                            total[g, d] += (w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]) + (
                                w4 * v4[d] + w5 * v5[d] + w6 * v6[d] + w7 * v7[d]
                            )
                for g in range(group):
                    for d in range(width):
                        out[i, h * group + g, d] = total[g, d]

    return run


_float32 = _attention_loop(half=False)
_bfloat16 = _attention_loop(half=True)


def attend(
    queries: NDArray[np.float32],
    keys: NDArray[Any],
    values: NDArray[Any],
    tables: NDArray[np.int32],
    rows: NDArray[np.int32],
    lengths: NDArray[np.int32],
    scale: float,
    out: NDArray[np.float32],
) -> None:
    """out[i] = softmax(scale · queries[i] · K) V over the first lengths[i] ≥ 1 positions of tables[rows[i]].

    queries, out: [tokens, heads, width]; keys, values: [key-value heads, positions, width], float32 or uint16
    (the bits of bfloat16); heads is a multiple of key-value heads. Runs on as many threads as torch.
    """
    loop = _bfloat16 if keys.dtype == np.uint16 else _float32
    arguments = (queries, keys, values, tables, rows, lengths, np.float32(scale), out)
    share(lambda start, end: loop(*arguments, start, end), lengths)

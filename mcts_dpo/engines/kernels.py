"""Compiled CPU loops of the transformers engine: attention over a pool, and drawing from logits. Arrays in, arrays out.

Each row's result depends on that row alone, whatever else is in the call and however many threads share it. All
loops are in this one file because numba's cache on disk notices a change of a function's own file only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

# Fast-math without the assumption that nothing is NaN or infinite: a model that yields those must be seen to.
_compile: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=True, error_model="numpy"
)
_LOG2E = np.float32(math.log2(math.e))
# 2**f on [0, 1) as a polynomial in f: relative error below 3e-7.
_C5, _C4, _C3 = np.float32(1.8775767e-3), np.float32(8.9893397e-3), np.float32(5.5826318e-2)
_C2, _C1, _C0 = np.float32(2.4015361e-1), np.float32(6.9315308e-1), np.float32(1)
_CHUNK = 512  # vocabulary entries summed in float32 before float64 takes over
_BINS = 2048  # of the histogram that finds the nucleus
_REACH = 32.0  # nats below the top that the histogram resolves


@_compile
def _top(values: Any) -> Any:
    """The largest of `values` float32 [n], NaN ignored; sixteen lanes, so that it runs in vectors."""
    count = len(values)
    lanes = np.full(16, -np.inf, np.float32)
    for i in range(count // 16):
        for j in range(16):
            value = values[16 * i + j]
            lanes[j] = value if value > lanes[j] else lanes[j]
    top = np.float32(-np.inf)
    for j in range(16):
        top = lanes[j] if lanes[j] > top else top
    for i in range(count // 16 * 16, count):
        top = values[i] if values[i] > top else top
    return top


@_compile
def _exponentials(values: Any, top: Any, inverse_temperature: Any, out: Any, bits: Any) -> None:
    """out = exp((values - top) · inverse_temperature), all float32 [n]; values ≤ top; `bits` is `out` as int32.

    2**(whole + part), written out so that the loop runs in vectors. Exactly 1 at the top, exactly 0 below 2**-126.
    """
    factor = _LOG2E * inverse_temperature
    for i in range(len(values)):
        x = (values[i] - top) * factor
        x = np.float32(-127) if x < np.float32(-127) else x
        whole = np.floor(x)
        part = x - whole
        power = _C5
        power = power * part + _C4
        power = power * part + _C3
        power = power * part + _C2
        power = power * part + _C1
        power = power * part + _C0
        bits[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        out[i] *= power


@_compile
def _total(values: Any) -> Any:
    """Σ values, float32 [n]."""
    total = np.float32(0)
    for i in range(len(values)):
        total += values[i]
    return total


@_compile
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

    @_compile
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
                    _exponentials(seen, _top(seen), np.float32(1), weight[g, :length], weight_bits[g, :length])
                    inverse = np.float32(1) / _total(weight[g, :length])
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
    _share(lambda start, end: loop(*arguments, start, end), lengths)


@_compile
def _normalise(logits: Any, out: Any, start: int, end: int) -> None:
    weight = np.empty(_CHUNK, np.float32)
    bits = weight.view(np.int32)
    vocabulary = logits.shape[1]
    for r in range(start, end):
        top = _top(logits[r])
        total = 0.0
        for a in range(0, vocabulary, _CHUNK):
            b = min(a + _CHUNK, vocabulary)
            _exponentials(logits[r, a:b], top, np.float32(1), weight[: b - a], bits[: b - a])
            total += np.float64(_total(weight[: b - a]))
        out[r] = np.float64(top) + math.log(total)


def log_normalisers(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log Σ exp(logits) of each row of [rows, vocabulary]; not finite where a row holds NaN or +inf."""
    out = np.empty(len(logits), np.float64)
    _share(lambda start, end: _normalise(logits, out, start, end), np.ones(len(logits), np.int32))
    return out


@_compile
def _bin(distance: Any) -> int:
    """The histogram bin of a value `distance` nats below the top; the last bin holds all beyond reach."""
    return int(min(distance * (_BINS / _REACH), np.float64(_BINS)))


@_compile
def _nucleus_threshold(values: Any, weight: Any, top: Any, inverse_temperature: Any, wanted: float) -> Any:
    """The smallest of the largest `values` whose `weight`s together reach `wanted`.

    A histogram by distance from the top finds the bin in which the mass crosses; only that bin is sorted.
    """
    mass = np.zeros(_BINS + 1, np.float64)
    for i in range(len(values)):
        mass[_bin(np.float64(top - values[i]) * inverse_temperature)] += weight[i]
    reached = 0.0
    cross = 0
    while cross < _BINS and reached + mass[cross] < wanted:
        reached += mass[cross]
        cross += 1
    inside = np.empty(len(values), np.float32)
    count = 0
    for i in range(len(values)):
        if _bin(np.float64(top - values[i]) * inverse_temperature) == cross:
            inside[count] = values[i]
            count += 1
    if count == 0:
        return np.float32(-np.inf)
    order = np.sort(inside[:count])
    for k in range(count - 1, -1, -1):
        reached += math.exp(np.float64(order[k] - top) * inverse_temperature)
        if reached >= wanted:
            return order[k]
    return order[0]


@_compile
def _draw(
    logits: Any, source: Any, temperature: Any, top_p: Any, uniform: Any, tokens: Any, start: int, end: int
) -> None:
    vocabulary = logits.shape[1]
    chunks = (vocabulary + _CHUNK - 1) // _CHUNK
    weight = np.empty(vocabulary, np.float32)
    bits = weight.view(np.int32)
    sums = np.empty(chunks, np.float64)
    for r in range(start, end):
        values = logits[source[r]]
        top = _top(values)
        best = 0
        while best < vocabulary - 1 and values[best] != top:
            best += 1
        tokens[r] = best
        if temperature[r] == 0.0:
            continue
        inverse = 1.0 / temperature[r]
        _exponentials(values, top, np.float32(inverse), weight, bits)
        total = 0.0
        for c in range(chunks):
            sums[c] = np.float64(_total(weight[c * _CHUNK : (c + 1) * _CHUNK]))
            total += sums[c]
        if not math.isfinite(total):
            continue
        if top_p[r] < 1.0:
            least = _nucleus_threshold(values, weight, top, inverse, top_p[r] * total)
            for i in range(vocabulary):
                weight[i] = weight[i] if values[i] >= least else np.float32(0)
            total = 0.0
            for c in range(chunks):
                sums[c] = np.float64(_total(weight[c * _CHUNK : (c + 1) * _CHUNK]))
                total += sums[c]
        # Walk to the chunk in which the cumulated mass passes uniform · total, then to the entry.
        rest = uniform[r] * total
        c = 0
        while c < chunks - 1 and rest >= sums[c]:
            rest -= sums[c]
            c += 1
        for i in range(c * _CHUNK, min((c + 1) * _CHUNK, vocabulary)):
            if weight[i] > 0:
                # Rounding may leave a little over after the chunk's last entry: then that entry it is.
                tokens[r] = i
                rest -= np.float64(weight[i])
                if rest < 0:
                    break


def draw(
    logits: NDArray[np.float32],
    source: NDArray[np.int64],
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    uniform: NDArray[np.float64],
    tokens: NDArray[np.int64],
) -> None:
    """tokens[r] = inverse CDF at uniform[r] of softmax(logits[source[r]] / temperature[r]) cut to its top_p[r]."""
    _share(
        lambda start, end: _draw(logits, source, temperature, top_p, uniform, tokens, start, end),
        np.ones(len(source), np.int32),
    )


_threads: list[ThreadPoolExecutor] = []


def _share(loop: Callable[[int, int], None], work: NDArray[np.int32]) -> None:
    """Run loop(start, end) over all rows, cut into as many parts of about equal `work` as torch has threads."""
    rows = len(work)
    parts = min(torch.get_num_threads(), rows)
    if parts <= 1:
        loop(0, rows)
        return
    if not _threads:
        _threads.append(ThreadPoolExecutor(thread_name_prefix="mcts-dpo-kernels"))
    done = np.concatenate([[0], np.cumsum(work)])
    cuts = np.searchsorted(done, np.linspace(0, done[-1], parts + 1)).tolist()
    cuts[0], cuts[-1] = 0, rows
    tasks = [_threads[0].submit(loop, a, b) for a, b in pairwise(cuts) if a < b]
    for task in tasks:
        task.result()

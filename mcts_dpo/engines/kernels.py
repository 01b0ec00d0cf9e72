"""Compiled CPU loops of the transformers engine: attention over a pool, and drawing from logits. Arrays in, arrays out.

Each row's result depends on that row alone, whatever else is in the call and however many threads share it.
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
_C2, _C1, _C0 = np.float32(2.4015361e-1), np.float32(6.9315308e-1), np.float32(9.9999994e-1)
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

    2**(whole + part), written out so that the loop runs in vectors. Never below 2**-126.
    """
    factor = _LOG2E * inverse_temperature
    for i in range(len(values)):
        x = (values[i] - top) * factor
        x = np.float32(-126) if x < np.float32(-126) else x
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
def _sum(values: Any) -> Any:
    total = np.float32(0)
    for i in range(len(values)):
        total += values[i]
    return total


def _attention_loop(half: bool) -> Callable[..., None]:
    """The loop for keys and values in float32, or (`half`) in bfloat16, whose bits come as uint16."""

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
        heads = queries.shape[1]
        width = queries.shape[2]
        kv_heads = keys.shape[1]
        group = heads // kv_heads
        longest = 1
        for i in range(start, end):
            longest = max(longest, lengths[i])
        score = np.empty((group, longest), np.float32)
        weight = np.empty((group, longest), np.float32)
        weight_bits = weight.view(np.int32)
        wide = np.empty(width, np.float32)
        bits = wide.view(np.int32)
        query = np.empty((group, width), np.float32)
        total = np.empty((group, width), np.float32)
        for i in range(start, end):
            length = lengths[i]
            row = tables[rows[i]]
            for h in range(kv_heads):
                for g in range(group):
                    for d in range(width):
                        query[g, d] = queries[i, h * group + g, d] * scale
                        total[g, d] = 0
                for t in range(length):
                    key = keys[row[t], h]
                    for d in range(width):
                        if half:
                            bits[d] = np.int32(key[d]) << 16
                        else:
                            wide[d] = key[d]
                    for g in range(group):
                        dot = np.float32(0)
                        for d in range(width):
                            dot += query[g, d] * wide[d]
                        score[g, t] = dot
                for g in range(group):
                    seen = score[g, :length]
                    _exponentials(seen, _top(seen), np.float32(1), weight[g, :length], weight_bits[g, :length])
                    inverse = np.float32(1) / _sum(weight[g, :length])
                    for t in range(length):
                        weight[g, t] *= inverse
                for t in range(length):
                    value = values[row[t], h]
                    for d in range(width):
                        if half:
                            bits[d] = np.int32(value[d]) << 16
                        else:
                            wide[d] = value[d]
                    for g in range(group):
                        share = weight[g, t]
                        for d in range(width):
                            total[g, d] += share * wide[d]
                for g in range(group):
                    for d in range(width):
                        out[i, h * group + g, d] = total[g, d]

    return run


_attend_float32 = _attention_loop(half=False)
_attend_bfloat16 = _attention_loop(half=True)


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

    queries, out: [tokens, heads, width]; keys, values: [positions, key-value heads, width], float32 or uint16
    (the bits of bfloat16); heads is a multiple of key-value heads. Runs on as many threads as torch.
    """
    loop = _attend_bfloat16 if keys.dtype == np.uint16 else _attend_float32
    arguments = (queries, keys, values, tables, rows, lengths, np.float32(scale), out)
    _shared(lambda start, end: loop(*arguments, start, end), lengths)


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
            total += np.float64(_sum(weight[: b - a]))
        out[r] = np.float64(top) + math.log(total)


def log_normalisers(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log Σ exp(logits) of each row of [rows, vocabulary]; not finite where a row holds NaN or +inf."""
    out = np.empty(len(logits), np.float64)
    _shared(lambda start, end: _normalise(logits, out, start, end), np.ones(len(logits), np.int32))
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
            sums[c] = np.float64(_sum(weight[c * _CHUNK : (c + 1) * _CHUNK]))
            total += sums[c]
        if not math.isfinite(total):
            continue
        if top_p[r] < 1.0:
            least = _nucleus_threshold(values, weight, top, inverse, top_p[r] * total)
            for i in range(vocabulary):
                weight[i] = weight[i] if values[i] >= least else np.float32(0)
            total = 0.0
            for c in range(chunks):
                sums[c] = np.float64(_sum(weight[c * _CHUNK : (c + 1) * _CHUNK]))
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
    _shared(
        lambda start, end: _draw(logits, source, temperature, top_p, uniform, tokens, start, end),
        np.ones(len(source), np.int32),
    )


_threads: list[ThreadPoolExecutor] = []


def _shared(loop: Callable[[int, int], None], work: NDArray[np.int32]) -> None:
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

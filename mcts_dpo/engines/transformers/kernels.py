"""Compiled CPU loops of the transformers engine: attention over a pool, and drawing from logits. Arrays in, arrays out.

Each row's result depends on that row alone, whatever else is in the call and however many threads share it. All
loops are in this one file because numba's cache on disk notices a change of a function's own file only (`touch` it
after a change of simd.py).
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

from mcts_dpo.engines.transformers.simd import WIDTH, larger, largest, load, power_of_two, splat, store, total

# Fast-math without the assumption that nothing is NaN or infinite: a model that yields those must be noticed.
_OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "cache": True, "error_model": "numpy"}
_compile: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(**_OPTIONS)
_inline: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(**_OPTIONS, forceinline=True)
_LOG2E = np.float32(math.log2(math.e))
_LEAST = np.float32(-np.inf)
_CHUNK = 512  # vocabulary entries summed in float32 before float64 takes over; a multiple of WIDTH
_BINS = 2048  # of the histogram that finds the nucleus
_REACH = 32.0  # nats below the top that the histogram resolves
_WINDOW = 32  # most tokens whose attention uses a tile of keys together
_SCORES = 2**17  # attention scores that are kept at a time: half a megabyte stays in the cache


@_compile
def _rest(values: Any) -> Any:
    """float32 [16]: the last len(values) % 16 of `values` float32 [n], filled up with -inf."""
    done = len(values) // WIDTH * WIDTH
    padded = np.full(WIDTH, _LEAST, np.float32)
    for i in range(done, len(values)):
        padded[i - done] = values[i]
    return padded


@_compile
def _top(values: Any) -> Any:
    """The largest of `values` float32 [n], NaN ignored."""
    whole = len(values) // WIDTH * WIDTH
    tops = splat(_LEAST)
    for i in range(0, whole, WIDTH):
        tops = larger(load(values, i), tops)
    if whole < len(values):
        tops = larger(load(_rest(values), 0), tops)
    return largest(tops)


@_compile
def _exponentials(values: Any, top: Any, inverse_temperature: Any, out: Any) -> Any:
    """out[:n] = exp((values - top) · inverse_temperature), float32 [n]; values ≤ top. Returns the sum.

    Exactly 1 at the top, exactly 0 below 2**-126. `out` has room for n rounded up to a multiple of 16; the rest is 0.
    """
    highest = splat(top)
    factor = splat(_LOG2E * inverse_temperature)
    sums = splat(np.float32(0))
    whole = len(values) // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        power = power_of_two((load(values, i) - highest) * factor)
        store(out, i, power)
        sums = sums + power
    if whole < len(values):
        power = power_of_two((load(_rest(values), 0) - highest) * factor)
        store(out, whole, power)
        sums = sums + power
    return total(sums)


@_compile
def write(tokens: Any, positions: Any, pool: Any) -> None:
    """pool[h, positions[i]] = tokens[h, i]; tokens [heads, n, width], pool [heads, all, width], of one dtype."""
    for h in range(tokens.shape[0]):
        for i in range(len(positions)):
            for d in range(tokens.shape[2]):
                pool[h, positions[i], d] = tokens[h, i, d]


@_compile
def _reuse(tables: Any, rows: Any, lengths: Any, start: int, count: int, out: Any) -> None:
    """out[t, i]: how many rows of tile t token start + i can reuse from the token before it.

    Tile t holds the 16 positions from 16 t on. The rows to reuse are those at its beginning that the tile already
    holds: those of the last earlier token, from `start` on, that reaches this tile. The first such token reuses none.
    """
    held = np.empty(WIDTH, np.int32)
    for t in range(len(out)):
        have = 0
        for i in range(count):
            seen = min(lengths[start + i] - t * WIDTH, WIDTH)
            if seen > 0:
                wanted = tables[rows[start + i], t * WIDTH : t * WIDTH + seen]
                same = 0
                while same < min(have, seen) and held[same] == wanted[same]:
                    same += 1
                for j in range(same, seen):
                    held[j] = wanted[j]
                have = seen if same < seen else have
                out[t, i] = same


@_inline
def _fill(
    tile: Any, row: int, begin: int, end: int, tables: Any, at: int, t: int, pool: Any, first: int, width: int
) -> None:
    """Rows of the tile from `begin` to `end` = the pool's at the positions tables[at, t + begin : t + end].

    tile: float32 [16 · row], rows of row ≥ width numbers; the rest of a row becomes 0. pool: of any shape, flat: one
    head's row of `width` numbers at position p begins at (first + p) · width.
    """
    whole = width // WIDTH * WIDTH
    for j in range(begin, end):
        source = (first + tables[at, t + j]) * width
        for d in range(0, whole, WIDTH):
            store(tile, j * row + d, load(pool, source + d))
        if whole < width:
            last = np.zeros(WIDTH, pool.dtype)
            for d in range(whole, width):
                last[d - whole] = pool[source + d]
            store(tile, j * row + whole, load(last, 0))


@_inline
def _scores(query: Any, start: int, tile: Any, count: int, row: int, out: Any, to: int) -> None:
    """out[to + j] = query · tile row j for j < count, rounded up to a multiple of 4."""
    for j in range(0, count, 4):
        s0 = s1 = s2 = s3 = splat(np.float32(0))
        at = j * row
        for d in range(0, row, WIDTH):
            q = load(query, start + d)
            s0 = s0 + q * load(tile, at + d)
            s1 = s1 + q * load(tile, at + row + d)
            s2 = s2 + q * load(tile, at + 2 * row + d)
            s3 = s3 + q * load(tile, at + 3 * row + d)
        out[to + j], out[to + j + 1], out[to + j + 2], out[to + j + 3] = total(s0), total(s1), total(s2), total(s3)


@_inline
def _gather(weight: Any, start: int, tile: Any, count: int, row: int, out: Any, to: int) -> None:
    """out[to : to + row] += Σ weight[start + j] · tile row j, over j < count."""
    for d in range(0, row, WIDTH):
        sums = load(out, to + d)
        for j in range(count):
            sums = sums + splat(weight[start + j]) * load(tile, j * row + d)
        store(out, to + d, sums)


@_compile
def _attend(
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
    """See `attend`; tokens from `start` to `end`, keys and values float32, or uint16 for bfloat16.

    One key-value head and one window of tokens at a time. All of a window go through 16 positions before any continues:
    tokens with a common prefix (of one sequence, of the samples of one request) follow one another in a batch, so that
    a tile of keys is converted once for all of them. What a token's numbers are does not depend on its neighbours.
    """
    kv_heads, positions, width = keys.shape
    heads = queries.shape[1]
    group = heads // kv_heads
    row = (width + WIDTH - 1) // WIDTH * WIDTH
    longest = 0
    for i in range(start, end):
        longest = max(longest, lengths[i])
    room = (longest + WIDTH - 1) // WIDTH * WIDTH
    all_keys, all_values = keys.reshape(-1), values.reshape(-1)
    tile = np.zeros(WIDTH * row, np.float32)
    most = min(_WINDOW, max(1, _SCORES // (group * room)))
    reuse = np.empty((room // WIDTH, most), np.uint8)
    query = np.zeros(most * group * row, np.float32)
    weight = np.empty(most * group * room, np.float32)
    result = np.empty(most * group * row, np.float32)
    for window in range(start, end, most):
        count = min(most, end - window)
        _reuse(tables, rows, lengths, window, count, reuse)
        for h in range(kv_heads):
            furthest = 0
            for i in range(count):
                furthest = max(furthest, lengths[window + i])
                for g in range(group):
                    for d in range(width):
                        query[(i * group + g) * row + d] = queries[window + i, h * group + g, d] * scale
            result[:] = 0
            for t in range(0, furthest, WIDTH):
                for i in range(count):
                    seen = min(lengths[window + i] - t, WIDTH)
                    if seen > 0:
                        same = reuse[t // WIDTH, i]
                        _fill(tile, row, same, seen, tables, rows[window + i], t, all_keys, h * positions, width)
                        for g in range(group):
                            at = i * group + g
                            _scores(query, at * row, tile, seen, row, weight, at * room + t)
            for i in range(count):
                length = lengths[window + i]
                padded = (length + WIDTH - 1) // WIDTH * WIDTH
                for at in range(i * group * room, (i + 1) * group * room, room):
                    weight[at + length : at + padded] = _LEAST
                    mine = weight[at : at + padded]
                    inverse = np.float32(1) / _exponentials(mine, _top(mine), np.float32(1), mine)
                    for t in range(length):
                        mine[t] *= inverse
            for t in range(0, furthest, WIDTH):
                for i in range(count):
                    seen = min(lengths[window + i] - t, WIDTH)
                    if seen > 0:
                        same = reuse[t // WIDTH, i]
                        _fill(tile, row, same, seen, tables, rows[window + i], t, all_values, h * positions, width)
                        for g in range(group):
                            at = i * group + g
                            _gather(weight, at * room + t, tile, seen, row, result, at * row)
            for i in range(count):
                for g in range(group):
                    for d in range(width):
                        out[window + i, h * group + g, d] = result[(i * group + g) * row + d]


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
    arguments = (queries, keys, values, tables, rows, lengths, np.float32(scale), out)
    _share(lambda start, end: _attend(*arguments, start, end), lengths)


@_compile
def _normalise(logits: Any, out: Any, start: int, end: int) -> None:
    weight = np.empty(_CHUNK, np.float32)
    vocabulary = logits.shape[1]
    for r in range(start, end):
        top = _top(logits[r])
        mass = 0.0
        for a in range(0, vocabulary, _CHUNK):
            mass += np.float64(_exponentials(logits[r, a : a + _CHUNK], top, np.float32(1), weight))
        out[r] = np.float64(top) + math.log(mass)


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
    weight = np.empty(chunks * _CHUNK, np.float32)
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
        mass = 0.0
        for c in range(chunks):
            a = c * _CHUNK
            sums[c] = np.float64(
                _exponentials(values[a : a + _CHUNK], top, np.float32(inverse), weight[a : a + _CHUNK])
            )
            mass += sums[c]
        if not math.isfinite(mass):
            continue
        if top_p[r] < 1.0:
            least = _nucleus_threshold(values, weight, top, inverse, top_p[r] * mass)
            mass = 0.0
            for c in range(chunks):
                sums[c] = 0.0
                for i in range(c * _CHUNK, min((c + 1) * _CHUNK, vocabulary)):
                    weight[i] = weight[i] if values[i] >= least else np.float32(0)
                    sums[c] += np.float64(weight[i])
                mass += sums[c]
        # Walk to the chunk in which the cumulated mass passes uniform · total, then to the entry.
        rest = uniform[r] * mass
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


@_compile
def _truncate(logits: Any, temperature: Any, top_k: Any, min_p: Any, start: int, end: int) -> None:
    vocabulary = logits.shape[1]
    for r in range(start, end):
        if temperature[r] == 0.0:
            continue
        values = logits[r]
        top = np.float64(_top(values))
        farthest = -temperature[r] * math.log(min_p[r]) if min_p[r] > 0.0 else np.inf
        least = _LEAST
        if 0 < top_k[r] < vocabulary:
            least = np.partition(values, vocabulary - top_k[r])[vocabulary - top_k[r]]
        for i in range(vocabulary):
            if values[i] < least or top - np.float64(values[i]) > farthest:
                values[i] = _LEAST


def truncate(
    logits: NDArray[np.float32],
    temperature: NDArray[np.float64],
    top_k: NDArray[np.int64],
    min_p: NDArray[np.float64],
) -> None:
    """Set logits [rows, vocabulary] to −inf, except each row's top_k[r] largest and those that reach its min_p[r].

    A row keeps all of equal values at the edge. top_k 0, or min_p 0, keeps everything; so does temperature 0.
    """
    _share(lambda start, end: _truncate(logits, temperature, top_k, min_p, start, end), np.ones(len(logits), np.int32))


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

"""From logits to tokens: counter-based uniform numbers, temperature, nucleus, inverse CDF. Arrays in, arrays out.

A draw depends on the logits of its row and on (seed, sample, position), never on what else is in the batch
or on how many draws came before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.kernels import compiled, exponentials, share, top_of, total_of

_CHUNK = 512  # vocabulary entries summed in float32 before float64 takes over
_BINS = 2048  # of the histogram that finds the nucleus
_REACH = 32.0  # nats below the top that the histogram resolves
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014, OOPSLA)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: NDArray[np.uint64], samples: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
    """One number in [0, 1) per row, a hash of (seed, sample, position); all arrays [rows]."""
    state = _mix(seeds + _GOLDEN)
    state = _mix(state ^ (samples.astype(np.uint64) * _GOLDEN + _GOLDEN))
    state = _mix(state ^ (positions.astype(np.uint64) * _GOLDEN + _GOLDEN))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample_tokens(
    logits: NDArray[np.float32],
    source: NDArray[np.int64],
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw one token per row.

    logits: [distinct, vocabulary]; source: [rows], which of the distinct each row draws from.
    temperature: [rows], 0 takes the most likely token (the first of equals), otherwise logits / temperature.
    top_p: [rows] in (0, 1]: only the most likely tokens, up to and including the one with which their
        probability (after temperature) reaches top_p; tokens exactly as likely as that one stay too.
    uniform: [rows] in [0, 1), where in the cumulated distribution (in vocabulary order) the draw falls.

    Returns tokens [rows], their log-probabilities under softmax(logits), untempered [rows], and the log of
    the softmax's normaliser [distinct], which is not finite where logits hold NaN or +inf (tokens are then void).
    """
    normaliser = log_normalisers(logits)
    tokens = np.empty(len(source), np.int64)
    draw(logits, source, temperature, top_p, uniform, tokens)
    return tokens, logits[source, tokens].astype(np.float64) - normaliser[source], normaliser


@compiled
def _normalise(logits: Any, out: Any, start: int, end: int) -> None:
    weight = np.empty(_CHUNK, np.float32)
    bits = weight.view(np.int32)
    vocabulary = logits.shape[1]
    for r in range(start, end):
        top = top_of(logits[r])
        total = 0.0
        for a in range(0, vocabulary, _CHUNK):
            b = min(a + _CHUNK, vocabulary)
            exponentials(logits[r, a:b], top, np.float32(1), weight[: b - a], bits[: b - a])
            total += np.float64(total_of(weight[: b - a]))
        out[r] = np.float64(top) + math.log(total)


def log_normalisers(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log Σ exp(logits) of each row of [rows, vocabulary]; not finite where a row holds NaN or +inf."""
    out = np.empty(len(logits), np.float64)
    share(lambda start, end: _normalise(logits, out, start, end), np.ones(len(logits), np.int32))
    return out


@compiled
def _bin(distance: Any) -> int:
    """The histogram bin of a value `distance` nats below the top; the last bin holds all beyond reach."""
    return int(min(distance * (_BINS / _REACH), np.float64(_BINS)))


@compiled
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


@compiled
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
        top = top_of(values)
        best = 0
        while best < vocabulary - 1 and values[best] != top:
            best += 1
        tokens[r] = best
        if temperature[r] == 0.0:
            continue
        inverse = 1.0 / temperature[r]
        exponentials(values, top, np.float32(inverse), weight, bits)
        total = 0.0
        for c in range(chunks):
            sums[c] = np.float64(total_of(weight[c * _CHUNK : (c + 1) * _CHUNK]))
            total += sums[c]
        if not math.isfinite(total):
            continue
        if top_p[r] < 1.0:
            least = _nucleus_threshold(values, weight, top, inverse, top_p[r] * total)
            for i in range(vocabulary):
                weight[i] = weight[i] if values[i] >= least else np.float32(0)
            total = 0.0
            for c in range(chunks):
                sums[c] = np.float64(total_of(weight[c * _CHUNK : (c + 1) * _CHUNK]))
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
    share(
        lambda start, end: _draw(logits, source, temperature, top_p, uniform, tokens, start, end),
        np.ones(len(source), np.int32),
    )

"""From logits to tokens: counter-based uniform numbers, penalties, temperature, top-k, nucleus, min-p, inverse CDF.

A draw depends on the logits of its row and on (seed, sample, position) alone: the rest of the batch and earlier draws
do not change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.shaping import PLAIN, Shape
from mcts_dpo.engines.transformers.kernels import draw, log_normalisers, truncate

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.empty(0, np.int32)


class Shaping(NamedTuple):
    """What changes the logits of one row. `before` and `generated` are read only by penalties.

    before:    int [n], the tokens of the prompt and of the solution so far. generated: int [m], those of the solution.
    """

    shape: Shape = PLAIN
    before: NDArray[Any] = _NONE
    generated: NDArray[Any] = _NONE


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
    shaping: Sequence[Shaping] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw one token per row.

    logits: [distinct, vocabulary]; source: [rows], which of the distinct each row draws from.
    temperature: [rows], 0 takes the most likely token (the first of equals), otherwise logits / temperature.
    top_p: [rows] in (0, 1]: only the most likely tokens, up to and including the one with which their
        probability (after temperature) reaches top_p; tokens exactly as likely as that one stay too.
    uniform: [rows] in [0, 1), where in the cumulated distribution (in vocabulary order) the draw falls.
    shaping: [rows], what else changes the distributions (see `Shape`); None: nothing does.

    Returns tokens [rows], their log-probabilities under softmax(logits), untempered [rows], and the log of
    the softmax's normaliser [distinct], which is not finite where logits hold NaN or +inf (tokens are then void).
    """
    normaliser = log_normalisers(logits)
    tokens = np.empty(len(source), np.int64)
    if shaping is None:
        draw(logits, source, temperature, top_p, uniform, tokens)
    else:
        rows = np.arange(len(source))
        draw(shaped(logits[source], temperature, shaping), rows, temperature, top_p, uniform, tokens)
    return tokens, logits[source, tokens].astype(np.float64) - normaliser[source], normaliser


def shaped(
    logits: NDArray[np.float32], temperature: NDArray[np.float64], shaping: Sequence[Shaping]
) -> NDArray[np.float32]:
    """Apply penalties, min_p and top_k to logits [rows, vocabulary], in place; −inf where a token cannot be drawn."""
    for row, (shape, before, generated) in zip(logits, shaping, strict=True):
        if shape.repetition_penalty != 1:
            values = row[before]
            row[before] = np.where(values < 0, values * shape.repetition_penalty, values / shape.repetition_penalty)
        if shape.presence_penalty:
            row[np.unique(generated)] -= shape.presence_penalty
    shapes = [one.shape for one in shaping]
    truncate(
        logits,
        temperature,
        np.array([shape.top_k for shape in shapes], np.int64),
        np.array([shape.min_p for shape in shapes], np.float64),
    )
    return logits

"""From logits to tokens: counter-based uniform numbers, temperature, nucleus, inverse CDF.

A draw depends on the logits of its row and on (seed, sample, position) alone: the rest of the batch and earlier draws
do not change it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.transformers.kernels import draw, log_normalisers

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

"""A request as an engine keeps it, and why some cannot be served. Knows no model but its three limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.base import Request, Sample


@dataclass(slots=True, eq=False)
class Job:
    """A request under way.

    prefix:   int32, the request's.
    limit:    tokens that a sample may have, the context considered (0 for a score request).
    stops:    bool [vocabulary], the tokens that could complete a stop string; None without stop strings.
    admitted: samples that have been given a slot; `done`: samples that are finished; `samples`: those, in order.
    """

    request: Request
    prefix: NDArray[np.int32]
    limit: int = 0
    stops: NDArray[np.bool_] | None = None
    admitted: int = 0
    done: int = 0
    samples: list[Sample | None] = field(default_factory=list)


def choice_tokens(request: Request) -> int:
    """Tokens that a score request computes beside its prefix: all but the last of every choice."""
    return sum(len(choice) - 1 for choice in request.choices or ())


def not_finite(length: int) -> str:
    """Why a request fails whose next token, after `length` tokens, has no distribution."""
    return f"the model's logits after {length} tokens are NaN or infinite"


def unservable(request: Request, vocabulary: int, context: int, memory: int) -> str | None:
    """Why this request cannot be served, naming field, value and what is accepted; None if it can.

    vocabulary: token ids are below it; context: longest sequence; memory: pool positions, all in tokens.
    """
    length = len(request.prefix)
    if length == 0:
        return "prefix: empty (accepted: at least one token)"
    wrong = next((token for token in request.prefix if not 0 <= token < vocabulary), None)
    if wrong is not None:
        return f"prefix: token {wrong} is not in the vocabulary of {vocabulary}"
    if request.choices is not None:
        return _unservable_choices(request, request.choices, vocabulary, context, memory)
    if length >= context:
        return f"prefix: {length} tokens leave no room in the context of {context}"
    if request.n < 1:
        return f"n: {request.n} (accepted: at least 1)"
    if request.max_tokens < 1:
        return f"max_tokens: {request.max_tokens} (accepted: at least 1)"
    if not 0 <= request.temperature < math.inf:
        return f"temperature: {request.temperature} (accepted: 0 or more)"
    if not 0 < request.top_p <= 1:
        return f"top_p: {request.top_p} (accepted: above 0, at most 1)"
    if not 0 <= request.seed < 2**63:
        return f"seed: {request.seed} (accepted: 0 to 2**63 - 1)"
    if not all(request.stop):
        return "stop: an empty string (accepted: strings of at least one character)"
    return None


def _unservable_choices(
    request: Request, choices: tuple[tuple[int, ...], ...], vocabulary: int, context: int, memory: int
) -> str | None:
    if not choices or not all(choices):
        return "choices: empty (accepted: at least one choice, of at least one token each)"
    wrong = next((token for choice in choices for token in choice if not 0 <= token < vocabulary), None)
    if wrong is not None:
        return f"choices: token {wrong} is not in the vocabulary of {vocabulary}"
    longest = len(request.prefix) + max(len(choice) for choice in choices)
    if longest > context:
        return f"choices: with the prefix the longest has {longest} tokens, more than the context of {context}"
    total = len(request.prefix) + choice_tokens(request)
    if total > memory:
        return f"choices: with the prefix {total} tokens, more than the key-value memory of {memory} holds"
    return None

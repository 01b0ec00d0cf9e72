"""The state of a request inside an engine, and the check whether an engine can serve it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.engines.shaping import shape_of, wrong_shape


@dataclass(slots=True, eq=False)
class Job:
    """A request in flight.

    prefix:   int32, the request's; the given tokens that are scored already are appended to it.
    limit:    tokens that a sample may have, within the context (0 for a score request).
    stops:    bool [vocabulary], the tokens that could complete a stop string; None without stop strings.
    admitted: samples that have got a slot; `done`: samples that are finished; `samples`: those, in order.
    logprobs: of the given tokens that are scored already.
    """

    request: Request
    prefix: NDArray[np.int32]
    limit: int = 0
    stops: NDArray[np.bool_] | None = None
    admitted: int = 0
    done: int = 0
    samples: list[Sample | None] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


CLOSED = "the engine is closed"
"""Why a request fails that comes after `Engine.close`."""


def scored_tokens(request: Request) -> int:
    """Tokens that a score request computes beside its prefix: all but the last of each choice or of the given ones."""
    scored = (request.choices or ()) if request.given is None else (request.given,)
    return sum(len(tokens) - 1 for tokens in scored)


def not_finite(length: int) -> str:
    """Why a request fails when the model gives no distribution after `length` tokens."""
    return f"the model's logits after {length} tokens are NaN or infinite"


def unservable(request: Request, vocabulary: int, context: int, memory: int) -> str | None:
    """Why this request cannot be served, naming field, value and what is accepted; None if it can.

    vocabulary: token ids are below it; context: longest sequence; memory: pool positions, all in tokens.
    """
    length = len(request.prefix)
    if length == 0:
        return "prefix: empty (accepted: at least one token)"
    unknown = next((token for token in request.prefix if not 0 <= token < vocabulary), None)
    if unknown is not None:
        return f"prefix: token {unknown} is not in the vocabulary of {vocabulary}"
    if request.scores:
        return _unservable_scores(request, vocabulary, context, memory)
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
    if (wrong := wrong_shape(shape_of(request))) is not None:
        return wrong
    if not 0 <= request.generated <= length:
        return f"generated: {request.generated} (accepted: 0 to {length}, the tokens of the prefix)"
    if not 0 <= request.seed < 2**63:
        return f"seed: {request.seed} (accepted: 0 to 2**63 - 1)"
    if not all(request.stop):
        return "stop: an empty string (accepted: strings of at least one character)"
    return None


def _unservable_scores(request: Request, vocabulary: int, context: int, memory: int) -> str | None:
    if request.choices is not None and request.given is not None:
        return "given: choices are set too (accepted: one of the two)"
    name = "choices" if request.given is None else "given"
    scored = (request.choices if request.given is None else (request.given,)) or ()
    if not scored or not all(scored):
        accepted = "at least one choice, of at least one token each" if name == "choices" else "at least one token"
        return f"{name}: empty (accepted: {accepted})"
    wrong = next((token for tokens in scored for token in tokens if not 0 <= token < vocabulary), None)
    if wrong is not None:
        return f"{name}: token {wrong} is not in the vocabulary of {vocabulary}"
    longest = len(request.prefix) + max(map(len, scored))
    if longest > context:
        what = "the longest has" if name == "choices" else "there are"
        return f"{name}: with the prefix {what} {longest} tokens, more than the context of {context}"
    total = len(request.prefix) + scored_tokens(request)
    if total > memory:
        return f"{name}: with the prefix {total} tokens, more than the key-value memory of {memory} holds"
    return None

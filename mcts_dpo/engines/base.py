"""The engine protocol: what everything that needs a language model asks of everything that runs one.

Requests are submitted, and completions are polled in any order, so that no tree waits for another. Token ids pass both
ways, never text that must be tokenised again: the sampled tokens are stored, extended, and trained on as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Request:
    """A prefix, and what to do with it: sample `n` continuations, compare `choices`, or score `given` tokens.

    A request with `choices` or `given` is a score request: nothing is sampled, and it ignores the fields from `n` to
    `seed` and `visible`. A request has `choices` or `given`, not both.

    id:          unique among the requests in flight.
    prefix:      token ids, at least one, the first token (BOS, if any) included.
    n:           continuations to sample (≥ 1).
    max_tokens:  limit of each continuation, in tokens (≥ 1).
    temperature: 0 is greedy; otherwise tokens are drawn from softmax(logits / temperature).
    top_p:       nucleus in (0, 1]; 1 keeps all tokens.
    stop:        strings; a continuation ends with the token whose text completes one of them.
    seed:        in [0, 2**63): sample j's draws depend on (seed, j, position) only, never on what else runs.
    choices:     the completion holds P(choice | prefix), normalised over the choices; each choice is a non-empty
                 sequence of token ids.
    visible:     a stop string of white space does not end a continuation that has no visible character yet, so that
                 leading blank lines belong to the line that follows them.
    given:       token ids (≥ 1); the completion holds the log-probability of each of them after the prefix and the
                 given tokens before it.
    judging:     the samples serve a reward and are no part of a solution. Engines ignore it.
    top_k, min_p, repetition_penalty, presence_penalty: see `shaping.Shape`. An engine may have none of them.
    generated:   how many tokens at the end of the prefix are the solution so far; the others are the prompt. Only
                 `presence_penalty` needs it.
    """

    id: int
    prefix: Sequence[int]
    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    choices: tuple[tuple[int, ...], ...] | None = None
    visible: bool = False
    given: tuple[int, ...] | None = None
    judging: bool = False
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    generated: int = 0

    @property
    def scores(self) -> bool:
        """Whether this is a score request."""
        return self.choices is not None or self.given is not None


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation.

    tokens:   the sampled tokens, including the last one (end of sequence, or the one that completed a stop).
    text:     the tokens decoded, without special tokens.
    logprobs: log π(token | everything before) under the *untempered* policy (natural log), one per token.
    finish:   "end" (an end-of-sequence token), "stop" (a stop string), "length" (max_tokens or the context).
    """

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request.

    samples:       n of them, in order; empty for a score request or an error.
    probabilities: for a request with choices, one per choice, summing to 1; otherwise empty.
    error:         why the request could not be served (e.g. the prefix exceeds the context), else None.
    final:         the error is caused by the request or the weights: a retry on a healthy engine gives it again. An
                   error that is not final may be caused by the engine.
    logprobs:      for a request with given tokens, log π(token | everything before) under the untempered policy
                   (natural log), one per token, each ≤ 0 and possibly −inf; otherwise empty.
    """

    id: int
    samples: tuple[Sample, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    final: bool = False
    logprobs: tuple[float, ...] = ()


@dataclass(slots=True)
class Usage:
    """Tokens that an engine has computed since it was made: what every budget and every table counts.

    prompt_tokens:  prefix tokens of all requests, shared or not, once per request whatever its n; a score request adds
                    all but the last token of each choice, or of its given tokens.
    prefill_tokens: those that were computed. A cached prefix saves all of its tokens but the last, which runs again.
    sampled_tokens: tokens generated.
    """

    prompt_tokens: int = 0
    prefill_tokens: int = 0
    sampled_tokens: int = 0

    def copy(self) -> Usage:
        """The totals so far, in an object of their own."""
        return Usage(self.prompt_tokens, self.prefill_tokens, self.sampled_tokens)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What the requests in flight hold in an engine. All fields are 0 when none is in flight, so that leaks show.

    A field is also 0 where an engine cannot tell.

    requests:  submitted, and neither polled nor cancelled.
    sequences: being decoded, in slots.
    tokens:    positions for keys and values that are reserved for them (cached prefixes not counted).
    pins:      sequences that keep a cached prefix from being evicted.
    """

    requests: int
    sequences: int = 0
    tokens: int = 0
    pins: int = 0


class Engine(Protocol):
    """Anything that runs a policy.

    tokenizer: the policy's own.
    context:   the longest prefix + continuation, in tokens.
    slots:     sequences that it runs side by side (≥ 1); a driver keeps about twice as many requests in flight.
    usage:     running totals.
    """

    tokenizer: PreTrainedTokenizerBase
    context: int
    slots: int
    usage: Usage

    def submit(self, request: Request) -> None:
        """Queue one request. Returns at once; never raises for a request's content (see Completion.error)."""
        ...

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Wait until at least one request is done; every completion is returned once. [] if none is in flight.

        patience: seconds (≥ 0) after which it returns without a completion; a model's step that has begun is finished
        first. None: no limit.
        """
        ...

    def cancel(self, ids: Iterable[int]) -> None:
        """Drop these requests: they hold nothing any more, and their completions are never returned.

        Requests that were done but not yet polled are dropped too. An id that is not in flight changes nothing.
        `usage` keeps what they have cost.
        """
        ...

    def occupancy(self) -> Occupancy:
        """What the requests in flight hold now."""
        ...

    def reset(self) -> None:
        """Forget every cached prefix: later results do not depend on earlier ones. Only while nothing is in flight."""
        ...

    def reload(self, checkpoint: Path) -> None:
        """Take new weights of the same architecture from a Hugging Face directory. Only while nothing is in flight.

        Raises InputError for a checkpoint that this engine cannot take.
        """
        ...

    def close(self) -> None:
        """Give memory, threads and connections back. Later requests are answered with an error. May be called twice."""
        ...

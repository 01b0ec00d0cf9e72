"""The protocol between everything that needs a language model and everything that runs one.

Event-driven: requests are submitted, completions are polled in any order, so that no tree waits for
another. Token ids pass both ways, never text that would have to be re-tokenised: what was sampled is
what is stored, prefixed again, and trained on. An engine knows no problems, trees or rewards.
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
    """One prefix and `n` continuations of it; or, with `choices`, a question about what comes next.

    id:          unique among the requests that are under way.
    prefix:      token ids, at least one, the first token (BOS, if any) included.
    n:           continuations to sample (≥ 1); ignored for a score request.
    max_tokens:  limit of each continuation, in tokens (≥ 1).
    temperature: 0 is greedy; otherwise tokens are drawn from softmax(logits / temperature).
    top_p:       nucleus in (0, 1]; 1 keeps all tokens.
    stop:        strings; a continuation ends with the token whose text completes one of them.
    seed:        in [0, 2**63): sample j's draws depend on (seed, j, position) only, never on what else runs.
    choices:     if given, nothing is sampled; the completion holds P(choice | prefix) normalised over
                 the choices, each a non-empty sequence of token ids.
    visible:     a stop string of white space does not end a continuation that has no visible character yet, so that
                 leading blank lines belong to the line that follows them.
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


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation.

    tokens:   what was sampled, the closing token (end of sequence, or the one that completed a stop) included.
    text:     the tokens decoded, special tokens left out.
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
    probabilities: for a score request, one per choice, summing to 1; otherwise empty.
    error:         why the request could not be served (e.g. the prefix exceeds the context), else None.
    final:         the error lies in the request or in the weights, so that it would come again from any engine that
                   lives; an error that is not may be the engine's own trouble.
    """

    id: int
    samples: tuple[Sample, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    final: bool = False


@dataclass(slots=True)
class Usage:
    """Tokens an engine has computed since it was made: what every budget and every table counts.

    prompt_tokens:  prefix tokens asked for, shared or not: once per request, whatever its n; a score request adds
                    all but the last token of each choice.
    prefill_tokens: those of them truly computed (a known prefix saves all but its last token, which runs again).
    sampled_tokens: tokens generated.
    """

    prompt_tokens: int = 0
    prefill_tokens: int = 0
    sampled_tokens: int = 0

    def copy(self) -> Usage:
        """The totals as they stand."""
        return Usage(self.prompt_tokens, self.prefill_tokens, self.sampled_tokens)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What requests under way hold in an engine, for whoever looks for leaks: all 0 when none is. 0 also where an
    engine cannot tell.

    requests:  submitted, and neither polled nor cancelled.
    sequences: being decoded, in slots.
    tokens:    places for keys and values that are set aside for them (remembered prefixes not counted).
    pins:      sequences that keep a remembered prefix from being forgotten.
    """

    requests: int
    sequences: int = 0
    tokens: int = 0
    pins: int = 0


class Engine(Protocol):
    """Anything that runs a policy.

    tokenizer: the policy's own.
    context:   the longest prefix + continuation, in tokens.
    usage:     running totals.
    """

    tokenizer: PreTrainedTokenizerBase
    context: int
    usage: Usage

    def submit(self, request: Request) -> None:
        """Queue one request. Returns at once; never raises for a request's content (see Completion.error)."""
        ...

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Block until at least one request is done; every completion is returned once. [] if none is under way.

        patience: seconds (≥ 0) after which it returns with nothing, all the same; a model's step that has begun is
        finished first. None waits as long as it takes.
        """
        ...

    def cancel(self, ids: Iterable[int]) -> None:
        """Give these requests up: what they hold is free at once, and no completion of theirs is ever returned.

        Those that were done but not yet polled are dropped; an id that is not under way changes nothing. What was
        computed stays counted in `usage`.
        """
        ...

    def occupancy(self) -> Occupancy:
        """What requests under way hold at the moment."""
        ...

    def reset(self) -> None:
        """Forget every cached prefix: what follows depends on nothing before. Only while nothing is under way."""
        ...

    def reload(self, checkpoint: Path) -> None:
        """New weights of the same architecture from a Hugging Face directory. Only while nothing is under way."""
        ...

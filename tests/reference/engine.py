"""A tiny probabilistic model with its engine: a seeded automaton over a word-level tokenizer, exact log-probabilities.

The model: a hidden state h, h' = T[h, token], and logits = W[h] + B[last token]. It is a language model like any
other, only small enough that every probability can be computed by hand and that thousands of searches take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mcts_dpo.engines.base import Completion, Occupancy, Request, Sample, Usage

PIECES = ("<unk>", "<eos>", "\n", " ", "a", "b", "####", "1", "2", "3", ";", "?", "y", "n")
#          how likely each is before the states have their say
_BIAS = (-np.inf, -1.2, 1.3, -0.6, 0.8, 0.5, 0.0, -0.7, -0.7, -0.7, -2.2, -3.0, -3.0, -3.0)
EOS = PIECES.index("<eos>")


def shows(token: int) -> bool:
    """Whether a token has visible text."""
    return token != EOS and not PIECES[token].isspace()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per piece of PIECES, decoded by plain concatenation; everything else is unknown."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"####|\n|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


TOKENIZER = tiny_tokenizer()


class AutomatonEngine:
    """Runs the automaton of `model_seed`. Completions come back last request first, to show that order is nothing.

    refused: a token id; a prefix in which it occurs is refused, as a real engine refuses what it cannot run.
    """

    def __init__(
        self, model_seed: int = 0, *, context: int = 4096, states: int = 7, sharpness: float = 0.7, refused: int = -1
    ) -> None:
        self.tokenizer = TOKENIZER
        self.context = context
        self.slots = 32
        self.usage = Usage()
        self.requests: list[Request] = []
        self._refused = refused
        self._waiting: list[Request] = []
        rng = np.random.default_rng(model_seed)
        size = len(PIECES)
        self._next = rng.integers(0, states, (states, size))
        self._logits = rng.normal(0.0, sharpness, (states, size)) + np.array(_BIAS)
        self._after = np.zeros((size, size))
        self._after[PIECES.index("####"), [PIECES.index(digit) for digit in "123"]] = 4.0
        self._after[[PIECES.index(digit) for digit in "123"], [EOS]] = 1.5
        self._after[PIECES.index("?"), [PIECES.index("y"), PIECES.index("n")]] = 6.0

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self._waiting.append(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        done = [self._complete(request) for request in reversed(self._waiting)]
        self._waiting.clear()
        return done

    def cancel(self, ids: Iterable[int]) -> None:
        gone = set(ids)
        self._waiting = [request for request in self._waiting if request.id not in gone]

    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._waiting))

    def reset(self) -> None:
        assert not self._waiting

    def reload(self, checkpoint: Path) -> None:
        raise NotImplementedError("the automaton has no checkpoints")

    def close(self) -> None:
        self._waiting.clear()

    def log_probabilities(self, prefix: Sequence[int]) -> np.ndarray:
        """log π(· | prefix), float64 [vocabulary]."""
        state = 0
        for token in prefix:
            state = self._next[state, token]
        logits = self._logits[state] + self._after[prefix[-1]]
        return np.asarray(logits - np.logaddexp.reduce(logits))

    def _complete(self, request: Request) -> Completion:
        self.usage.prompt_tokens += len(request.prefix)
        if len(request.prefix) >= self.context:
            return Completion(
                request.id, error=f"prefix of {len(request.prefix)} tokens in a context of {self.context}"
            )
        if self._refused in request.prefix:
            return Completion(request.id, error=f"refused: token {self._refused}")
        if request.given is not None:
            return Completion(request.id, logprobs=self._score(request.prefix, request.given))
        if request.choices is not None:
            scores = [sum(self._score(request.prefix, choice)) for choice in request.choices]
            total = sum(math.exp(score) for score in scores)
            return Completion(request.id, probabilities=tuple(math.exp(score) / total for score in scores))
        samples = tuple(self._sample(request, index) for index in range(request.n))
        self.usage.sampled_tokens += sum(len(sample.tokens) for sample in samples)
        return Completion(request.id, samples)

    def _score(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[float, ...]:
        return tuple(float(self.log_probabilities([*prefix, *tokens[:at]])[token]) for at, token in enumerate(tokens))

    def _sample(self, request: Request, index: int) -> Sample:
        rng = np.random.default_rng([request.seed, index])
        tokens: list[int] = []
        logprobs: list[float] = []
        limit = min(request.max_tokens, self.context - len(request.prefix))
        while True:
            log_p = self.log_probabilities([*request.prefix, *tokens])
            token = _draw(log_p, request.temperature, request.top_p, float(rng.random()))
            tokens.append(token)
            logprobs.append(float(log_p[token]))
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            if token == EOS:
                return Sample(tuple(tokens), text, tuple(logprobs), "end")
            line = text.lstrip()
            if any(stop in (line if request.visible and stop.isspace() else text) for stop in request.stop):
                return Sample(tuple(tokens), text, tuple(logprobs), "stop")
            if len(tokens) >= limit:
                return Sample(tuple(tokens), text, tuple(logprobs), "length")


def _draw(log_p: np.ndarray, temperature: float, top_p: float, u: float) -> int:
    if temperature == 0.0:
        return int(np.argmax(log_p))
    p = np.exp((log_p - log_p.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p - 1e-12)) + 1]
    share = np.cumsum(p[kept]) / p[kept].sum()
    return int(kept[min(int(np.searchsorted(share, u, side="right")), len(kept) - 1)])

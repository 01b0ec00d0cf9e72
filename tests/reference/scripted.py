"""An engine whose policy follows a script: for each question the solutions that it may write, token by token.

It runs as any engine does: prefixes of token ids in, samples with log-probabilities out, stop strings, limits and ends
of sequence included. The solutions that begin with what the prefix holds are equally likely; sample j of a request
takes them in turn, so that every one is drawn where there are enough samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mcts_dpo.engines.base import Completion, Finish, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.text import StopStrings
from mcts_dpo.models.decoding import decode, prefixes


class ScriptedEngine:
    """scripts: by question, the solutions in full. yes: what the policy thinks of its own reasoning. opening: what the
    chat template writes at the beginning of an answer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        scripts: Mapping[str, Sequence[str]],
        yes: float = 0.5,
        *,
        opening: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.context = 4096
        self.slots = 32
        self.usage = Usage()
        self._yes = yes
        self._opened = f"assistant\n{opening}"
        self._scripts = {
            question: [
                (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id) for text in texts
            ]
            for question, texts in scripts.items()
        }
        self._stops = StopStrings(tokenizer, len(tokenizer))
        self._waiting: list[Request] = []

    def submit(self, request: Request) -> None:
        self._waiting.append(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        done = [self._complete(request) for request in self._waiting]
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
        raise NotImplementedError("a script has no checkpoints")

    def close(self) -> None:
        self._waiting.clear()

    def _complete(self, request: Request) -> Completion:
        self.usage.prompt_tokens += len(request.prefix)
        if request.choices is not None:
            return Completion(request.id, probabilities=(self._yes, 1 - self._yes))
        following = self._following(tuple(request.prefix))
        if request.given is not None:
            return Completion(request.id, logprobs=_given_logprobs(following, request.given))
        if not following:
            return Completion(request.id, error="the script does not continue here", final=True)
        samples = tuple(self._sample(request, following[j % len(following)], len(following)) for j in range(request.n))
        self.usage.sampled_tokens += sum(len(sample.tokens) for sample in samples)
        return Completion(request.id, samples)

    def _following(self, prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What may come after a prefix: the rest of each solution of its question that it holds the beginning of."""
        up_to = prefixes(self.tokenizer, prefix)
        question = next(one for one in self._scripts if one in up_to(len(prefix)))
        opened = (start for start in range(len(prefix) + 1) if up_to(start).endswith(self._opened))
        said = prefix[next(opened) :]
        found = [script[len(said) :] for script in self._scripts[question] if script[: len(said)] == said]
        return list(dict.fromkeys(found))

    def _sample(self, request: Request, rest: tuple[int, ...], equals: int) -> Sample:
        limit = min(request.max_tokens, self.context - len(request.prefix))
        met = self._stops.completed_visibly if request.visible else self._stops.completed
        finish: Finish = "length"
        end = min(limit, len(rest))
        for count in range(1, end + 1):
            if rest[count - 1] == self.tokenizer.eos_token_id:
                finish, end = "end", count
                break
            if request.stop and met(rest[:count], request.stop):
                finish, end = "stop", count
                break
        tokens = rest[:end]
        logprobs = (-math.log(equals), *[0.0] * (end - 1))
        return Sample(tokens, decode(self.tokenizer, tokens), logprobs, finish)


def _given_logprobs(following: Sequence[tuple[int, ...]], given: tuple[int, ...]) -> tuple[float, ...]:
    """log π of each given token, all continuations being equally likely; −inf for one that none of them writes."""
    counts = [sum(rest[:length] == given[:length] for rest in following) for length in range(len(given) + 1)]
    return tuple(math.log(after / before) if after else -math.inf for before, after in pairwise(counts))

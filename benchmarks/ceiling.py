"""An engine's own ceiling: how fast it decodes and reads prefixes when nothing but tokens is asked of it.

    ceiling = measure(engine, batch_sizes=(8, 32))
    predicted = ceiling.predict(usage, slots=32)          # usage: what a search added to engine.usage
    share = predicted / measured

In: any engine of the protocol, idle. Out: seconds per decode step by batch size, and prefix tokens per second: of
texts read from the start, and of questions behind a text that the cache holds, whose tokens look back further and so
cost more. All requests are made of the same few pages of plain text; those that would end early are found beforehand
and replaced, so that every sequence of a timed batch lives to its last token. Knows nothing of trees.

The prediction is of the engine at its best with nothing mixed: every decode step full, every prefix token in a step of
hundreds, each at the context lengths that `measure` is given (those of the search, for a fair comparison). What a
search can do worse: leave slots empty, read a few tokens at a time, wait. What it can do better: read prefixes in the
very step that decodes, so that the weights come from memory once for both; its share may then exceed 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.driving import complete
from mcts_dpo.engines.base import Engine, Request, Usage

_TEXT = """The harbour wakes before the town does. At four the first boats are already out past the breakwater, and the
ice lorries stand in a row with their engines running. By six there are crates on the quay, counted twice, once by the
crew and once by the buyer, and the two numbers seldom agree. A crate of herring weighs about twenty kilograms, of which
three are ice; a crate of crab weighs less, and nobody counts the legs. The auction takes eleven minutes. After it the
gulls have the place to themselves, until the school bus comes down the hill and turns by the old customs house, where a
clock has shown twenty past nine for as long as anyone remembers. My grandfather used to say that it was right twice a
day, which was more than could be said of the ferry. He kept a notebook of every crossing he had made, with the date,
the weather, what he had paid, and how late the boat had been; when he died there were four thousand entries, and my
mother worked out on a winter evening that he had spent ninety-one days of his life waiting on that quay. """


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What an engine does in the best case, on the clock that `measure` was given.

    batch_sizes:  sequences decoded together, rising.
    step_seconds: seconds for one more token of each of them, per batch size.
    prefill:      prefix tokens computed per second, texts of `prefix` tokens from the start.
    behind:       the same where a few tokens follow a known prefix of `context` tokens, as a question about it does.
    context:      tokens before each decoded one, on average, at which step_seconds were measured.
    """

    batch_sizes: tuple[int, ...]
    step_seconds: tuple[float, ...]
    prefill: float
    behind: float
    context: int

    def decode(self, slots: float) -> float:
        """Tokens per second with `slots` sequences decoded together (≥ 1; between sizes a step's time is a line)."""
        known = np.array(self.batch_sizes, float)
        if slots >= known[-1]:
            return float(known[-1] / self.step_seconds[-1])
        return slots / float(np.interp(slots, known, self.step_seconds))

    def predict(self, usage: Usage, slots: float, asked: int = 0) -> float:
        """Seconds that the engine alone needs to compute the tokens of `usage` with `slots` sequences at a time.

        asked: how many of its prefill tokens were questions behind known prefixes. Each kind of token is charged on
        its own, although an engine may run all of them in one batch.
        """
        reading = (usage.prefill_tokens - asked) / self.prefill + asked / self.behind
        return reading + usage.sampled_tokens / self.decode(slots)


def measure(
    engine: Engine,
    *,
    batch_sizes: Sequence[int] = (1, 8, 32),
    prefix: int = 192,
    tokens: int = 48,
    question: int = 24,
    repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> Ceiling:
    """Measure an idle engine; its caches are emptied, its usage still counts.

    batch_sizes: none larger than the engine's slots. prefix: tokens before the first decoded one. tokens: decoded by
    each sequence. question: tokens read behind a known prefix. repeats: of each measurement; the fastest counts, since
    whatever else the machine does only slows it.
    clock: seconds; the default counts CPU time of this process, all threads together.
    Raises RuntimeError when the engine cannot serve such requests.
    """
    sizes = tuple(sorted(set(batch_sizes)))
    longer = passages(engine.tokenizer, sizes[-1], prefix + tokens // 2 + question)
    texts = [text[:prefix] for text in longer]
    reading = min(_read(engine, texts, clock) for _ in range(repeats + 1))
    steps = [min(_decode(engine, texts[:size], tokens, reading, clock) for _ in range(repeats)) for size in sizes]
    asking = min(_ask(engine, longer, question, clock) for _ in range(repeats))
    engine.reset()
    return Ceiling(sizes, tuple(steps), 1 / reading, 1 / asking, prefix + tokens // 2)


def passages(tokenizer: Any, count: int, length: int) -> list[tuple[int, ...]]:
    """`count` different passages of `length` tokens, none a prefix of another."""
    words = _TEXT.split()
    found = []
    for i in range(count):
        turned = words[i * 7 % len(words) :] + words
        text = f"{i + 1}. " + " ".join(turned * (1 + length // len(turned)))
        found.append(tuple(tokenizer(text)["input_ids"][:length]))
    return found


def _read(engine: Engine, passages: Sequence[tuple[int, ...]], clock: Callable[[], float]) -> float:
    """Seconds per prefix token: every passage from an empty cache, one token asked of each."""
    engine.reset()
    before = engine.usage.prefill_tokens
    start = clock()
    _served(engine, [Request(i, passage, max_tokens=1, temperature=0.0) for i, passage in enumerate(passages)])
    return (clock() - start) / (engine.usage.prefill_tokens - before)


def _ask(engine: Engine, passages: Sequence[tuple[int, ...]], question: int, clock: Callable[[], float]) -> float:
    """Seconds per prefix token of the last `question` tokens of every passage, the rest of which is known."""
    engine.reset()
    _served(engine, [Request(i, text[:-question], max_tokens=1, temperature=0.0) for i, text in enumerate(passages)])
    before = engine.usage.prefill_tokens
    start = clock()
    _served(engine, [Request(i, text, choices=((text[0],), (text[1],))) for i, text in enumerate(passages)])
    return (clock() - start) / (engine.usage.prefill_tokens - before)


def _decode(
    engine: Engine,
    passages: Sequence[tuple[int, ...]],
    tokens: int,
    reading: float,
    clock: Callable[[], float],
) -> float:
    """Seconds per step with one sequence of each passage, all of them known to the cache and none ending early."""
    requests = [Request(i, passage, max_tokens=tokens, seed=i) for i, passage in enumerate(passages)]
    for _ in range(20):
        lengths = _served(engine, requests)
        if min(lengths) == tokens:
            break
        requests = [
            request
            if length == tokens
            else Request(request.id, request.prefix, max_tokens=tokens, seed=request.seed + 997)
            for request, length in zip(requests, lengths, strict=True)
        ]
    else:
        raise RuntimeError(f"no continuation of {tokens} tokens: the policy ends its text too early")
    before = engine.usage.prefill_tokens
    start = clock()
    _served(engine, requests)
    spent = clock() - start
    return (spent - reading * (engine.usage.prefill_tokens - before)) / tokens


def _served(engine: Engine, requests: Sequence[Request]) -> list[int]:
    """Run the requests; the tokens that each one's only sample has, if it is asked for one."""
    completions = complete(engine, requests)
    failed = next((completion.error for completion in completions if completion.error), None)
    if failed:
        raise RuntimeError(f"the engine cannot be measured: {failed}")
    return [len(sample.tokens) for completion in completions for sample in completion.samples]

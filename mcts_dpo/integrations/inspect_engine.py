"""An engine whose samples come from the model that Inspect AI is configured with: messages go in, text comes back.

A search runs in a thread and uses this engine like any other. Each sample that it requests becomes one call of
Inspect's own `generate`, in the task of Inspect's sample. So Inspect's connections, retries, limits, cache and log
apply to each call. `with_model` runs a search this way.

Models behind a message interface have no token ids. Pieces of text, numbered as they arrive, take their place
(`TextTokenizer`): a sample has as many pieces as the model reports tokens, so that budgets count the model's tokens.
Log-probabilities are the model's if it gives those of exactly its text, else 0; then a step's prior is the fraction of
the samples that took it. A partial solution is continued as the assistant's unfinished turn (`prefill`), or by asking
for the rest of it.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
)

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.engines.base import Completion, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.retry import EngineDiedError

ResultT = TypeVar("ResultT")

CONTEXT = 1 << 30
"""Tokens of a context: no limit of ours. The model refuses a prompt that is too long."""
SLOTS = 32
"""Requests that a driver takes to run side by side; how many do is Inspect's to say."""
CONTINUE = "\n\nA solution begins with the lines below. Write what comes after them, and do not repeat them.\n\n"
_TURN, _SAID = "\x1d", "\x1e"  # before the role of a turn, and between the role and what is said
_END, _SILENT = 0, 1  # ids: the end of a message; a token without text, such as hidden reasoning


class TextTokenizer:
    """Texts as numbers and back, for a model whose tokens are not known. A new text gets the next number.

    It has what prompts and searches use of a transformers tokenizer. `turns` reads what its chat template writes.
    Numbers are valid within one instance only.
    """

    chat_template = "messages of an interface without token ids"
    eos_token_id = _END
    bos_token = None

    def __init__(self) -> None:
        self._pieces: list[str] = ["", ""]
        self._known: dict[str, int] = {}
        self.special_tokens_map: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def get_vocab(self) -> dict[str, int]:
        """Empty: no vocabulary is known."""
        return {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """A text as one piece."""
        return {"input_ids": [self.number(text)]}

    def number(self, piece: str) -> int:
        """The id of a piece of text, the same for the same piece."""
        if piece not in self._known:
            self._known[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._known[piece]

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """The pieces, joined."""
        return "".join([self._pieces[token] for token in tokens])

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> str:
        """Messages as one text that ends where the assistant's turn begins."""
        said = [f"{_TURN}{message['role']}{_SAID}{_bare(message['content'])}" for message in messages]
        return "".join(said) + f"{_TURN}assistant{_SAID}"


def turns(text: str) -> list[ChatMessage]:
    """The messages of a text that `TextTokenizer` wrote, without an empty turn of the assistant."""
    kinds: dict[str, type[ChatMessageSystem] | type[ChatMessageUser] | type[ChatMessageAssistant]] = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
    }
    found: list[ChatMessage] = []
    for turn in text.split(_TURN)[1:]:
        role, _, content = turn.partition(_SAID)
        if role != "assistant" or content:
            found.append(kinds[role](content=content))
    return found


SAMPLING = frozenset({"temperature", "top_p", "top_k", "presence_penalty"})
"""The sampling settings that Inspect's `generate` has."""


@dataclass(frozen=True, slots=True)
class Calls:
    """How Inspect's model is called.

    sampling:   those of SAMPLING that are passed; Inspect's configuration sets the others.
    logprobs:   request log-probabilities (some models refuse them).
    prefill:    the model continues an assistant's unfinished message; else a message asks for the rest.
    cache:      use Inspect's cache; None: as Inspect is configured.
    judgement:  tokens at most of a reply to "is this right?"; some interfaces accept no fewer than 16.
    """

    sampling: frozenset[str] = frozenset()
    logprobs: bool = True
    prefill: bool = False
    cache: bool | None = None
    judgement: int = 16


class Closed(EngineDiedError):
    """Inspect's sample has ended: limit, error or cancellation. Its requests are not retried."""


class InspectEngine:
    """See the module. `with_model` makes it; its methods are those of `Engine`."""

    def __init__(self, model: Model, calls: Calls, send: Callable[[Request], None]) -> None:
        self.tokenizer: Any = TextTokenizer()
        self.context = CONTEXT
        self.slots = SLOTS
        self.usage = Usage()
        self.model, self.calls = model, calls
        self._send = send
        self._done: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._under_way: set[int] = set()

    def submit(self, request: Request) -> None:
        """Send one request to the sample's task. A request with given tokens fails."""
        self._under_way.add(request.id)
        if request.given is not None:
            reason = "given: Inspect's model gives no log-probabilities of given tokens"
            self._done.put(Completion(request.id, error=reason, final=True))
            return
        self._send(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Wait for at least one completion, or `patience` seconds. Raises Closed when the sample has ended."""
        found: list[Completion] = []
        while self._under_way and (not found or not self._done.empty()):
            try:
                completion = self._done.get(timeout=patience)
            except queue.Empty:
                break
            if completion is None:
                raise Closed("the sample has ended")
            if completion.id in self._under_way:
                self._under_way.discard(completion.id)
                found.append(completion)
        return found

    def cancel(self, ids: Iterable[int]) -> None:
        """Drop these requests: later results of `generate` for them are not returned."""
        self._under_way.difference_update(ids)

    def occupancy(self) -> Occupancy:
        """Requests in flight."""
        return Occupancy(len(self._under_way))

    def reset(self) -> None:
        """Does nothing: the cache is the model's."""

    def reload(self, checkpoint: Path) -> None:
        """Raises InputError: the weights are the model's."""
        raise InputError(f"{checkpoint}: Inspect's model keeps its weights")

    def close(self) -> None:
        """End the wait of a thread in `poll`, which raises Closed."""
        self._done.put(None)

    async def serve(self, request: Request) -> None:
        """Serve one request in the sample's task. Raises as `generate`."""
        if request.choices is not None:
            self._done.put(await self._judge(request))
            return
        samples: list[Sample | None] = [None] * request.n

        async def one(place: int) -> None:
            samples[place] = await self._sample(request, place)

        async with anyio.create_task_group() as group:
            for place in range(request.n):
                group.start_soon(one, place)
        self._done.put(Completion(request.id, samples=tuple(sample for sample in samples if sample is not None)))

    async def _generate(self, messages: list[ChatMessage], **config: Any) -> ModelOutput:
        cached = {} if self.calls.cache is None else {"cache": self.calls.cache}
        output = await self.model.generate(messages, config=GenerateConfig(**config), **cached)
        if output.usage:
            self.usage.prompt_tokens += output.usage.input_tokens
            self.usage.prefill_tokens += output.usage.input_tokens
            self.usage.sampled_tokens += output.usage.output_tokens
        return output

    async def _sample(self, request: Request, place: int) -> Sample:
        messages = turns(self.tokenizer.decode(request.prefix))
        partial = ""
        if isinstance(messages[-1], ChatMessageAssistant):
            partial = messages[-1].text
            if not self.calls.prefill:
                asked = messages[-2]
                messages = [*messages[:-2], ChatMessageUser(content=asked.text + CONTINUE + partial)]
        chosen = {name: getattr(request, name) for name in SAMPLING}
        output = await self._generate(
            messages,
            max_tokens=request.max_tokens,
            stop_seqs=list(request.stop) or None,
            # Each sample has its own seed, by which Inspect's cache tells samples apart. Some models ignore it.
            seed=seed_from(request.seed, place) & 0x7FFFFFFF,
            logprobs=True if self.calls.logprobs else None,
            **{name: value for name, value in chosen.items() if name in self.calls.sampling},
        )
        text = _bare(output.completion)
        if partial and not self.calls.prefill:
            text = _unrepeated(text, partial)
        return self._read(text, output, request)

    def _read(self, text: str, output: ModelOutput, request: Request) -> Sample:
        """A message as a sample, which ends with the end token unless it was cut or a stop string ended it."""
        written = output.usage.output_tokens if output.usage else 0
        stopped = next((stop for stop in request.stop if stop in text), None)
        if stopped is not None:
            text = text[: text.index(stopped) + len(stopped)]
            finish = "stop"
        elif output.stop_reason in ("max_tokens", "model_length") or (
            output.stop_reason == "unknown" and written >= request.max_tokens
        ):
            finish = "length"
        elif request.stop and text:
            # Interfaces omit the stop string from the text and do not say which it was, or whether the message ended
            # without one. If it did, the next step is empty.
            text, finish = text + request.stop[0], "stop"
        else:
            finish = "end"
        reported = output.choices[0].logprobs if output.choices else None
        given = [(one.token, one.logprob) for one in reported.content] if reported else []
        pieces = [(piece, 0.0) for piece in cut(text, written - (finish == "end"))]
        if text and "".join(piece for piece, _ in given) == text:
            pieces = given
        tokens = [self.tokenizer.number(piece) if piece else _SILENT for piece, _ in pieces]
        logprobs = [min(0.0, float(value)) for _, value in pieces]
        if finish == "end":
            tokens, logprobs = [*tokens, _END], [*logprobs, 0.0]
        return Sample(tuple(tokens), text, tuple(logprobs), finish)  # type: ignore[arg-type]

    async def _judge(self, request: Request) -> Completion:
        """The probability of each choice, from the first token's log-probabilities, or from the reply's text."""
        assert request.choices is not None
        words = [self.tokenizer.decode(choice) for choice in request.choices]
        wanted = {"logprobs": True, "top_logprobs": 20} if self.calls.logprobs else {}
        output = await self._generate(
            turns(self.tokenizer.decode(request.prefix)), max_tokens=self.calls.judgement, seed=request.seed, **wanted
        )
        reported = output.choices[0].logprobs if output.choices else None
        masses = [0.0] * len(words)
        for position in reported.content if reported else ():
            for one in position.top_logprobs or ():
                for place, word in enumerate(words):
                    masses[place] += math.exp(one.logprob) * (_word(one.token) == _word(word))
            if any(masses):
                break
        if not any(masses):
            reply = _word(output.completion)
            masses = [float(reply.startswith(_word(word))) for word in words]
        if not any(masses):
            masses = [1.0] * len(words)
        return Completion(request.id, probabilities=tuple(mass / sum(masses) for mass in masses))


async def with_model(model: Model, calls: Calls, work: Callable[[InspectEngine], ResultT]) -> ResultT:
    """Run `work` in a thread with an engine over `model`; its requests are served in the calling task.

    Raises what `work` raises, and what Inspect's `generate` raises (limits, refusals), as they are.
    """
    send, receive = anyio.create_memory_object_stream[Request](math.inf)
    failures: list[BaseException] = []
    results: list[ResultT] = []
    engine = InspectEngine(model, calls, lambda request: anyio.from_thread.run_sync(send.send_nowait, request))

    async with anyio.create_task_group() as group:

        async def serve(request: Request) -> None:
            try:
                await engine.serve(request)
            except BaseException as error:
                if not isinstance(error, anyio.get_cancelled_exc_class()):
                    failures.append(_first(error))
                    engine.close()
                    return
                raise

        async def serve_all() -> None:
            async for request in receive:
                group.start_soon(serve, request)

        group.start_soon(serve_all)
        try:
            # Its own limiter: a search keeps its thread for long, and others must not wait for it.
            limiter = anyio.CapacityLimiter(1)
            results.append(await anyio.to_thread.run_sync(work, engine, abandon_on_cancel=True, limiter=limiter))
        except Exception as error:
            failures.append(error)  # after a failed request this is Closed; the first failure is the reason
        finally:
            engine.close()
            group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return results[0]


def cut(text: str, count: int) -> list[str]:
    """Cut a text into about `count` pieces, each within one line; pieces of tokens without text are "".

    Every line has at least one piece. There are exactly `count` pieces unless the text has more lines than that.
    """
    lines = text.splitlines(keepends=True)
    spare = max(0, count - len(lines))
    pieces: list[str] = []
    left = len(text)
    for line in lines:
        # Longer lines are cut into more pieces.
        share = min(len(line) - 1, round(spare * len(line) / left)) if left else 0
        spare, left = spare - share, left - len(line)
        bounds = [len(line) * place // (share + 1) for place in range(share + 2)]
        pieces += [line[low:high] for low, high in pairwise(bounds)]
    return [""] * (count - len(pieces)) + pieces


def _unrepeated(text: str, partial: str) -> str:
    """What a model wrote, without the beginning that it repeats."""
    bare = text.lstrip()
    shown = partial.strip()
    return bare[len(shown) :].lstrip("\n") if bare.startswith(shown) else text


def _word(text: str) -> str:
    """A word for comparison: lower case, without marks around it and the signs of vocabularies for white space."""
    return text.strip(" \t\r\n\u0120\u010a\u2581*_\"'.,:;!").casefold()


def _bare(text: str) -> str:
    """A text without the marks of turns."""
    return text.replace(_TURN, "").replace(_SAID, "")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

"""The engine that sends requests to a server with OpenAI's completions protocol: vLLM's, or any that returns token ids.

Every sample is one HTTP request, with token ids as its prompt and its own seed. Up to `slots` requests are sent at a
time, on an asyncio loop in a thread. The `openai` client repeats a request after a lost connection, a time-out, 429 or
5xx, with growing, random delays. A request that still fails does not affect the others.

The engine needs extensions of the protocol (the names are vLLM's): `return_token_ids` for every request,
`stop_token_ids` for samples, `logprob_token_ids` for choices and given tokens, and `echo` with log-probabilities for
given tokens. Log-probabilities are the server's; vLLM's are those of the untempered policy. Whether a seed repeats a
sample depends on the server. The server keeps its weights and its cache: `reload` is refused, `reset` changes nothing.
A presence penalty counts the tokens that the server generates for one request, not those of earlier steps.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Finish, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.choice_scoring import next_token_queries, normalised_choices
from mcts_dpo.engines.client import ClientThread, one_line
from mcts_dpo.engines.model_limits import end_tokens, longest_sequence
from mcts_dpo.engines.requests import CLOSED, not_finite, scored_tokens, unservable
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.shaping import shape_of
from mcts_dpo.engines.text import StopStrings, continued
from mcts_dpo.engines.transformers.sampling import uniforms
from mcts_dpo.models.loading import load_skeleton, load_tokenizer

Part = TypeVar("Part")

_CHOICES = 128  # next tokens that are scored in one request at most
_KEY = "OPENAI_API_KEY"  # the environment variable with the server's key, if it needs one


class _Failed(Exception):
    """Why a request cannot be served, in one line."""


class _NotFiniteError(_Failed):
    """The model's logits are NaN or infinite: a retry gives the same."""


class OpenAIEngine:
    """See the module. `load_engine` makes it; its methods are those of `Engine`."""

    def __init__(self, model: str | Path, settings: EngineSettings) -> None:
        """Connect to the server at `settings.url`.

        model: where the tokenizer and the configuration of the served model are (a directory, hub name or .gguf file).
        Raises InputError when the server cannot be reached, serves no such model, or returns no token ids or
        log-probabilities.
        """
        if settings.url is None:
            raise InputError("engine.url: missing (accepted: a server's address, e.g. http://localhost:8000/v1)")
        self._thread = ClientThread(
            "engine.kind: 'openai'",
            url=settings.url,
            key=os.environ.get(_KEY, "none"),
            timeout=settings.timeout,
            retries=settings.retries,
        )
        self._client = self._thread.client
        self.settings = settings
        self.tokenizer = load_tokenizer(model)
        skeleton = load_skeleton(model)
        config = skeleton.config.get_text_config()
        self._vocabulary = int(config.vocab_size)
        self._ends = frozenset(np.flatnonzero(end_tokens(skeleton, self.tokenizer, self._vocabulary)).tolist())
        self._text = StopStrings(self.tokenizer, self._vocabulary)
        self.usage = Usage()
        self._done: queue.SimpleQueue[tuple[Completion, Request]] = queue.SimpleQueue()
        self._in_flight: dict[int, Request] = {}
        self._serving: dict[int, Future[None]] = {}
        self.slots = settings.slots
        self._slots = asyncio.Semaphore(settings.slots)
        try:
            self._served, says = self._thread.result(self._find_model())
            self.context = longest_sequence(config, settings.context or says)
            trial = Request(0, (min(self._ends, default=0),), max_tokens=1, temperature=0.0)
            self._thread.result(self._sample(trial, 0))
        except _Failed as failure:
            self.close()
            raise InputError(f"engine.url: {settings.url}: {failure}") from None
        self.usage = Usage()  # the trial request is not counted

    def submit(self, request: Request) -> None:
        """Send one request. For a request that cannot be served, `poll` returns a Completion with an error.

        Raises ValueError when a request of the same id is in flight.
        """
        if request.id in self._in_flight:
            raise ValueError(f"request {request.id} is already in flight")
        self._in_flight[request.id] = request
        if not self._thread.alive:
            self._done.put((Completion(request.id, error=CLOSED), request))
            return
        problem = unservable(request, self._vocabulary, self.context, self.context * self.settings.slots)
        if problem is not None:
            self._done.put((Completion(request.id, error=problem, final=True), request))
            return
        self.usage.prompt_tokens += len(request.prefix) + scored_tokens(request)
        self._serving[request.id] = self._thread.submit(self._serve(request))

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Wait until at least one request is done, or `patience` seconds have passed. [] if none is in flight."""
        until = None if patience is None else time.monotonic() + patience
        if not self._thread.alive:  # what was in flight is lost
            lost, self._in_flight = self._in_flight, {}
            return [Completion(one, error=CLOSED) for one in lost]
        ready: list[Completion] = []
        while self._in_flight and (not ready or not self._done.empty()):
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                completion, request = self._done.get(timeout=left)
            except queue.Empty:
                break
            if self._in_flight.get(completion.id) is request:  # it was not cancelled after it was done
                del self._in_flight[completion.id]
                self._serving.pop(completion.id, None)
                ready.append(completion)
        return ready

    def cancel(self, ids: Iterable[int]) -> None:
        """Drop these requests: their connections are closed, so that the server stops too. See `Engine.cancel`."""
        for one in set(ids):
            self._in_flight.pop(one, None)
            serving = self._serving.pop(one, None)
            if serving is not None:
                serving.cancel()

    def occupancy(self) -> Occupancy:
        """Requests in flight; the memory they hold is the server's."""
        return Occupancy(len(self._in_flight))

    def reset(self) -> None:
        """Does nothing: the cache is the server's. Raises RuntimeError while requests are in flight."""
        if self._in_flight:
            raise RuntimeError(f"reset while {len(self._in_flight)} requests are in flight")

    def reload(self, checkpoint: Path) -> None:
        """Raises InputError: the weights are the server's."""
        raise InputError(
            f"{checkpoint}: the server at {self.settings.url} keeps its weights; training round after round needs "
            "engine.kind 'transformers' or 'vllm'"
        )

    def close(self) -> None:
        """End the thread and the connections; requests in flight fail. See `Engine.close`."""
        self._thread.close()

    async def _find_model(self) -> tuple[str, int | None]:
        """The served model's name, and the context that the server says it has."""
        listed = (await self._call(self._client.models.list())).data
        names = [model.id for model in listed]
        wanted = self.settings.served or (names[0] if len(names) == 1 else None)
        if wanted is None or wanted not in names:
            raise _Failed(f"engine.served: {self.settings.served!r} (accepted: {', '.join(names) or 'nothing'})")
        says = getattr(next(model for model in listed if model.id == wanted), "max_model_len", None)
        return wanted, says

    async def _serve(self, request: Request) -> None:
        """Serve one request; its parts are sent side by side."""
        try:
            if request.given is not None:
                completion = Completion(request.id, logprobs=await self._score_given(request, request.given))
            elif request.choices is not None:
                asked = next_token_queries(request.choices, _CHOICES)
                scores = await _together(self._score(request, after, tokens) for after, tokens in asked)
                known = {place: score for part in scores for place, score in part.items()}
                completion = Completion(request.id, probabilities=normalised_choices(request.choices, known))
            else:
                samples = await _together(self._sample(request, j) for j in range(request.n))
                completion = Completion(request.id, samples=tuple(samples))
        except _Failed as failure:
            completion = Completion(request.id, error=str(failure), final=isinstance(failure, _NotFiniteError))
        except Exception as error:  # without a completion the caller would wait forever
            completion = Completion(request.id, error=f"the server's answer cannot be read ({error!r})")
        self._done.put((completion, request))

    async def _call(self, call: Any) -> Any:
        """Await a call of the client, which repeats it. Raises _Failed with the reason, one line."""
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        try:
            return await call
        except APITimeoutError:
            raise _Failed(f"no answer within {self.settings.timeout:g} s, {self._tries()}") from None
        except APIConnectionError as error:
            raise _Failed(f"cannot be reached, {self._tries()} ({error.__cause__ or error})") from None
        except APIStatusError as error:
            again = f", {self._tries()}" if error.status_code == 429 or error.status_code >= 500 else ""
            raise _Failed(f"the server answers {error.status_code}{again}: {one_line(error.message)}") from None
        except APIError as error:
            raise _Failed(f"the server's answer cannot be read ({one_line(error.message)})") from None

    def _tries(self) -> str:
        return f"tried {self.settings.retries + 1} times"

    async def _ask(self, prompt: list[int], **options: Any) -> Any:
        """Request one completion of token ids and count its cost. Returns its only choice."""
        extra = {"return_token_ids": True, "return_tokens_as_token_ids": True, **options.pop("extra", {})}
        async with self._slots:
            answer = await self._call(
                self._client.completions.create(model=self._served, prompt=prompt, extra_body=extra, **options)
            )
        details = getattr(answer.usage, "prompt_tokens_details", None)
        self.usage.prefill_tokens += len(prompt) - (getattr(details, "cached_tokens", None) or 0)
        if len(answer.choices) != 1:
            raise _Failed(f"the server gave {len(answer.choices)} completions for one")
        return answer.choices[0]

    async def _sample(self, request: Request, j: int) -> Sample:
        limit = min(request.max_tokens, self.context - len(request.prefix))
        sample = await self._draw(request, j, limit, None)
        before = None
        while request.visible:
            sample, more = continued(self._text, request, limit, before, sample)
            if not more:
                break
            before, sample = sample, await self._draw(request, j, limit, sample)
        return sample

    async def _draw(self, request: Request, j: int, limit: int, before: Sample | None) -> Sample:
        """Sample j, or the part of it after `before`."""
        drawn = before.tokens if before else ()
        # Each sample has its own seed of 31 bits: every server accepts that many.
        mixed = uniforms(np.array([request.seed], np.uint64), np.array([j]), np.array([len(drawn)]))[0]
        choice = await self._ask(
            [*request.prefix, *drawn],
            max_tokens=limit - len(drawn),
            temperature=request.temperature,
            top_p=request.top_p,
            stop=list(request.stop) or None,
            seed=int(mixed * 2**31),
            logprobs=1,
            extra={"stop_token_ids": sorted(self._ends), **shape_of(request).settings_on()},
        )
        tokens = getattr(choice, "token_ids", None)
        if tokens is None:
            raise _Failed("the server returns no token ids (it does not know `return_token_ids`; vLLM does)")
        logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
        if logprobs is None or len(logprobs) != len(tokens):
            raise _Failed("the server returns no log-probability for each sampled token")
        if not tokens:
            raise _Failed("the server returned a continuation of no tokens")
        broken = next((i for i, one in enumerate(logprobs) if one is None or not math.isfinite(one)), None)
        if broken is not None:
            raise _NotFiniteError(not_finite(len(request.prefix) + len(drawn) + broken))
        self.usage.sampled_tokens += len(tokens)
        finish: Finish = "end" if tokens[-1] in self._ends else "stop" if choice.finish_reason == "stop" else "length"
        return Sample(tuple(tokens), self._text.decode(tokens), tuple(map(float, logprobs)), finish)

    async def _score(
        self, request: Request, after: tuple[int, ...], tokens: tuple[int, ...]
    ) -> dict[tuple[int, ...], float]:
        """log π(token | prefix, after) of each of `tokens`, by (*after, token)."""
        choice = await self._ask([*request.prefix, *after], **_scoring(tokens))
        found = _scored(choice, tokens, len(request.prefix) + len(after))
        return {(*after, token): logprob for token, logprob in found.items()}

    async def _score_given(self, request: Request, given: tuple[int, ...]) -> tuple[float, ...]:
        """log π(token | everything before) of each given token: of the echoed prompt's, and of the last one."""
        *body, last = given
        length = len(request.prefix) + len(body)
        choice = await self._ask([*request.prefix, *body], echo=bool(body), **_scoring((last,)))
        found = list(_scored(choice, (last,), length).values())
        if body:
            echoed = choice.logprobs.token_logprobs
            if len(echoed) != length + 1:
                raise _Failed("the server gives no log-probabilities of a prompt's tokens (it does not know `echo`)")
            found = echoed[len(request.prefix) : length] + found
        broken = next((i for i, one in enumerate(found) if one is None or not math.isfinite(one)), None)
        if broken is not None:
            raise _NotFiniteError(not_finite(len(request.prefix) + broken))
        return tuple(map(float, found))


def _scoring(tokens: tuple[int, ...]) -> dict[str, Any]:
    """The options with which a server returns the log-probabilities of given next tokens."""
    extra = {"logprob_token_ids": list(tokens)}
    return {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "extra": extra}


def _scored(choice: Any, tokens: tuple[int, ...], length: int) -> dict[int, float]:
    """log π(token | everything before) of each of `tokens` as the next one, from a server's answer.

    length: tokens before it.
    """
    top = (choice.logprobs.top_logprobs or [{}])[-1] if choice.logprobs else {}
    found = {}
    for token in tokens:
        logprob = top.get(f"token_id:{token}")
        if logprob is None:
            raise _Failed("the server cannot score given tokens (it does not know `logprob_token_ids`; vLLM does)")
        if not math.isfinite(logprob):
            raise _NotFiniteError(not_finite(length))
        found[token] = float(logprob)
    return found


async def _together(parts: Iterable[Coroutine[Any, Any, Part]]) -> list[Part]:
    """Run all parts side by side and return their results. When one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

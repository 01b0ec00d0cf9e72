"""Asks a model behind an OpenAI-compatible chat API, for answers that need no token ids (a judge's, say).

In: texts, each a user's turn. Out: an answer to each, or None where the API gave none in time. A failure never raises:
it is logged, once for each kind. Log-probabilities of the answer's tokens are asked for; an API that refuses them is
asked without.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from mcts_dpo.engines.client import ClientThread, one_line

ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)

ALTERNATIVES = 5
"""Tokens at each place whose log-probabilities are asked for: as many as every API gives."""
RETRIES = 2
_NO_COMPLETION = "the answer is no chat completion; does the address end with the API's version, such as /v1?"


@dataclass(frozen=True, slots=True)
class ChatToken:
    """A token of an answer. alternatives: log-probabilities (natural log) of the likeliest tokens there, by text."""

    text: str
    alternatives: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """An answer. tokens: those of the text; empty if the API gives no log-probabilities."""

    text: str
    tokens: tuple[ChatToken, ...] = ()


class ChatClient:
    """See the module. Calls may come from several threads."""

    def __init__(
        self, setting: str, *, url: str, model: str, key: str, timeout: float, concurrency: int, **options: Any
    ) -> None:
        """Make a client; nothing is sent.

        setting: what needs it, for errors. timeout: seconds for one answer, repeated requests included. concurrency:
        requests at a time. options: of every request (max_tokens, temperature). Raises InputError without the package
        `openai`.
        """
        self._thread = ClientThread(setting, url=url, key=key, timeout=timeout, retries=RETRIES)
        self._setting, self._url, self._model, self._timeout = setting, url, model, timeout
        self._options = options
        self._slots = asyncio.Semaphore(concurrency)
        self._logprobs = True
        self._noted: set[str] = set()

    def submit(self, texts: Sequence[str], read: Callable[[ChatAnswer | None], ResultT]) -> Future[list[ResultT]]:
        """Ask some texts side by side. Returns a future of what `read` makes of each answer."""
        return self._thread.submit(self._all(texts, read))

    def close(self) -> None:
        """End the thread and the connections."""
        self._thread.close()

    async def _all(self, texts: Sequence[str], read: Callable[[ChatAnswer | None], ResultT]) -> list[ResultT]:
        return [read(answer) for answer in await asyncio.gather(*map(self._answer, texts))]

    async def _answer(self, text: str) -> ChatAnswer | None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    return _read(await self._ask(text))
            except Exception as error:  # whatever the server does, only this answer is missing
                self._note(error)
                return None

    async def _ask(self, text: str) -> Any:
        from openai import BadRequestError

        if self._logprobs:
            try:
                return await self._create(text, logprobs=True, top_logprobs=ALTERNATIVES)
            except BadRequestError:
                answer = await self._create(text)
                self._logprobs = False  # not before it was answered: the text may be what was refused
                return answer
        return await self._create(text)

    async def _create(self, text: str, **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        create: Any = self._thread.client.chat.completions.create
        return await create(model=self._model, messages=messages, **self._options, **options)

    def _note(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._noted:
            self._noted.add(kind)
            late = f"not within {self._timeout:g} s"
            reason = late if isinstance(error, TimeoutError) else one_line(str(error))
            reason = _NO_COMPLETION if isinstance(error, json.JSONDecodeError) else reason
            _log.warning("%s: %s gives no answer: %s (%s)", self._setting, self._url, reason, kind)


def _read(answer: Any) -> ChatAnswer:
    """An answer as the client gives it. Raises an error of any kind if it is not one."""
    if not getattr(answer, "choices", None):
        raise TypeError(_NO_COMPLETION)
    choice = answer.choices[0]
    text = choice.message.content
    if not isinstance(text, str):
        raise TypeError(f"the answer's content is {type(text).__name__}, not text")
    return ChatAnswer(text, _tokens(choice))


def _tokens(choice: Any) -> tuple[ChatToken, ...]:
    """The tokens with their alternatives; () if the API gives none, or none that can be read."""
    try:
        return tuple(
            ChatToken(one.token, {other.token: _logprob(other) for other in (one, *one.top_logprobs)})
            for one in choice.logprobs.content
        )
    except (AttributeError, TypeError, ValueError):
        return ()


def _logprob(one: Any) -> float:
    value = float(one.logprob)
    if math.isnan(value) or value > 1e-3 or not isinstance(one.token, str):
        raise ValueError(f"{one.logprob!r} is no log-probability of a token")
    return value

"""The HTTP client of everything that asks a server: the `openai` package's, on an asyncio loop in a thread.

In: the server's address. Out: a client whose calls run side by side and are waited for from any thread. It repeats a
request after a lost connection, a time-out, 429 or 5xx, with growing, random delays.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from mcts_dpo.common.errors import InputError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ResultT = TypeVar("ResultT")


class ClientThread:
    """A client and the thread that runs its calls. client: its methods are awaited in `submit` and `result`."""

    def __init__(self, setting: str, *, url: str, key: str, timeout: float, retries: int) -> None:
        """Start the thread; nothing is sent.

        setting: what needs the client, for the error. key: of the server. timeout: seconds for one answer. retries:
        how often a request is repeated. Raises InputError without the package `openai`.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise InputError(f"{setting} needs the package openai: pip install 'mcts-dpo[openai]'") from None
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="mcts-dpo-client", daemon=True)
        thread.start()
        self.client: AsyncOpenAI = AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)
        self._finalizer = weakref.finalize(self, _close, self._loop, self.client, thread)

    @property
    def alive(self) -> bool:
        """Whether it was not closed yet."""
        return self._finalizer.alive

    def submit(self, coroutine: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def result(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine in the thread and wait for its result."""
        return self.submit(coroutine).result()

    def close(self) -> None:
        """Close the connections and end the thread; requests in flight are lost. May be called twice."""
        self._finalizer()


def one_line(text: str) -> str:
    """The first line of an error's message."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _close(loop: asyncio.AbstractEventLoop, client: AsyncOpenAI, thread: threading.Thread) -> None:
    async def end() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await client.close()

    if loop.is_running():
        asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()

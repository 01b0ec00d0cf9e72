"""Threads for work on requests' texts (JSON, chat template, tokens), so that event loop and engine do not wait.

There are two threads, each with its own copy of the tokenizer: one for short texts, one for long ones, so that short
texts do not wait for long ones.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ResultT = TypeVar("ResultT")
SHORT = 1 << 16
"""Bytes of the longest short text."""
WAITING = 256
"""Pieces of work that may wait for one thread."""


class Busy(Exception):
    """Too much work waits for the thread."""


class _Worker:
    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.threads = ThreadPoolExecutor(1, thread_name_prefix=f"mcts-dpo-{name}")
        self.waiting = 0


class TextWorkers:
    """The two threads. tokenizer: is copied; the original is not used afterwards."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._short, self._long = (_Worker(name, copy.deepcopy(tokenizer)) for name in ("short", "long"))

    async def run(self, size: int, work: Callable[[PreTrainedTokenizerBase], ResultT]) -> ResultT:
        """Run `work` in the thread for texts of `size` bytes. Returns and raises as `work`; raises Busy."""
        worker = self._short if size <= SHORT else self._long
        if worker.waiting >= WAITING:
            raise Busy
        worker.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(worker.threads, work, worker.tokenizer)
        finally:
            worker.waiting -= 1

    def stop(self) -> None:
        """Drop waiting work; the threads end after their current work."""
        for worker in (self._short, self._long):
            worker.threads.shutdown(wait=False, cancel_futures=True)

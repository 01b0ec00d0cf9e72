"""Work on requests' texts (JSON, chat template, tokens) away from the event loop's thread and the engine's.

In: a piece of work and how many bytes it is about. Out: what the work returns. Two lanes, a thread each with its own
copy of the tokenizer: long texts wait for long texts alone. Knows no request.
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
"""Bytes up to which a request is a short one."""
WAITING = 256
"""Pieces of work that may wait in one lane."""


class Busy(Exception):
    """Too much waits in the lane already."""


class _Lane:
    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.threads = ThreadPoolExecutor(1, thread_name_prefix=f"mcts-dpo-{name}")
        self.waiting = 0


class Preparer:
    """See the module. tokenizer: copied; the original is not touched afterwards."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._short, self._long = (_Lane(name, copy.deepcopy(tokenizer)) for name in ("short", "long"))

    async def run(self, size: int, work: Callable[[PreTrainedTokenizerBase], ResultT]) -> ResultT:
        """Do a piece of work about `size` bytes and return what it does. Raises what it raises, or Busy."""
        lane = self._short if size <= SHORT else self._long
        if lane.waiting >= WAITING:
            raise Busy
        lane.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(lane.threads, work, lane.tokenizer)
        finally:
            lane.waiting -= 1

    def stop(self) -> None:
        """Give up what waits; the threads end with what they are at."""
        for lane in (self._short, self._long):
            lane.threads.shutdown(wait=False, cancel_futures=True)

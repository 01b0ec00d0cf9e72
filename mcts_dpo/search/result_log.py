"""What a runner needs of a log, so that a killed search can be replayed: the protocol, and checks of logged results.

In: pieces of work and results. journal.py writes such a log to a file; runner.py replays it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.coroutine import Call, Work


class Recorded(NamedTuple):
    """A result from a log. coroutine: its index in the group. number, work: number and fingerprint of the work."""

    coroutine: int
    number: int
    work: int
    result: Any


class ResultLog(Protocol):
    """A log of a group's results. A killed search is replayed from it (see journal.py)."""

    @property
    def entries(self) -> Sequence[Recorded]:
        """The results that are in the log, in the order of writing."""
        ...

    def record(self, coroutine: int, number: int, work: Work, result: Any) -> None:
        """Add one result to the log."""
        ...

    def set_aside_from(self, position: int, why: str) -> None:
        """Remove the entry at `position` and all after it: the coroutines do not ask for that work. why: the reason."""
        ...


def fingerprint(work: Work) -> int:
    """A 32-bit checksum that identifies a piece of work."""
    if isinstance(work, Request):
        about: Any = [*(getattr(work, field) for field in work.__slots__ if field not in ("id", "prefix"))]
        return zlib.crc32(np.asarray(work.prefix, "<i4").tobytes(), zlib.crc32(repr(about).encode()))
    return zlib.crc32(f"{getattr(work.function, '__qualname__', '')} {len(work.items)}".encode())


def fits(work: Work, result: Any) -> bool:
    """Whether a recorded result has the right form for this work."""
    if isinstance(work, Call):
        return isinstance(result, list) and len(result) == len(work.items)
    if not isinstance(result, Completion):
        return False
    if result.error is not None:
        return True
    if work.choices is not None:
        return len(result.probabilities) == len(work.choices)
    if work.given is not None:
        return len(result.logprobs) == len(work.given)
    return len(result.samples) == work.n

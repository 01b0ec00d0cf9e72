"""Whose request goes into the engine next, where many want it: the share that has had least.

In: requests, each of a share (somebody who waits for an answer); which of them have ended. Out: requests in the order
in which they are to be submitted, so that about `room` sequences are in the engine. What a request takes is counted as
the most tokens that it may sample (start-time fair queueing: Goyal, Vin and Cheng 1996). Knows no engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from mcts_dpo.engines.base import Request


@dataclass(slots=True)
class Shares:
    """room: sequences in the engine at a time, ≥ 1; a request of several is let in when there is room for one."""

    room: int
    _waiting: dict[Hashable, deque[Request]] = field(default_factory=dict)
    _had: dict[Hashable, float] = field(default_factory=dict)
    _inside: dict[int, int] = field(default_factory=dict)
    _taken: int = 0
    _now: float = 0.0

    def add(self, request: Request, share: Hashable) -> None:
        """A request waits from here on."""
        if share not in self._waiting:
            self._waiting[share] = deque()
            self._had[share] = max(self._now, self._had.get(share, 0.0))
        self._waiting[share].append(request)

    def take(self) -> Request | None:
        """The request to submit next; None if there is none, or no room."""
        if self._taken >= self.room or not self._waiting:
            return None
        share = min(self._waiting, key=self._had.__getitem__)
        request = self._waiting[share].popleft()
        self._now = self._had[share]
        sequences = 1 if request.choices is not None else request.n
        self._had[share] += 1 if request.choices is not None else request.n * request.max_tokens
        self._inside[request.id] = sequences
        self._taken += sequences
        if not self._waiting[share]:
            del self._waiting[share]
            self._had = {one: had for one, had in self._had.items() if one in self._waiting or had > self._now}
        return request

    def end(self, ids: Sequence[int]) -> None:
        """These requests are over, whether they waited or were in the engine."""
        outside = {one for one in ids if one not in self._inside}
        self._taken -= sum(self._inside.pop(one, 0) for one in ids)
        if outside:
            kept = {
                share: deque(request for request in line if request.id not in outside)
                for share, line in self._waiting.items()
            }
            self._waiting = {share: line for share, line in kept.items() if line}

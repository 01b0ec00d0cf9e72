"""Chooses the request that goes into the engine next: one of the share that has received least so far.

In: requests, each of a share (somebody who waits for an answer), and which requests have ended. Out: requests in the
order in which to submit them, so that about `room` sequences are in the engine. A request counts as the most tokens
that it may sample. A share may be a tuple: (client, job) divides the engine evenly between clients, and what a client
gets evenly between its jobs.

Source: weighted fair queueing, Demers, Keshav and Shenker 1989, "Analysis and simulation of a fair queueing algorithm".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from mcts_dpo.engines.base import Request

Part = tuple[Hashable, ...]


@dataclass(slots=True)
class Shares:
    """The queue of waiting requests, and what each share has had so far.

    A part is a beginning of a share: (client,) and (client, job) of (client, job). Its whole is the part without its
    last element; the empty tuple is the whole of all clients.

    room: sequences in the engine at a time, ≥ 1. A request for several sequences enters when there is room for one.
    _had: tokens that a part has had, for each part that waits or has waited lately.
    _now: for each whole, the tokens that a part of it would have had if it had always waited. A new part starts there.
    """

    room: int
    _waiting: dict[Part, deque[Request]] = field(default_factory=dict)
    _had: dict[Part, float] = field(default_factory=dict)
    _now: dict[Part, float] = field(default_factory=dict)
    _inside: dict[int, int] = field(default_factory=dict)
    _taken: int = 0

    def add(self, request: Request, share: Hashable) -> None:
        """Add a request to those that wait."""
        path = share if isinstance(share, tuple) else (share,)
        if path not in self._waiting:
            self._waiting[path] = deque()
            for part in _parts(path):
                self._had[part] = max(self._now.get(part[:-1], 0.0), self._had.get(part, 0.0))
        self._waiting[path].append(request)

    def take(self) -> Request | None:
        """Remove and return the request to submit next. None if no request waits or there is no room."""
        if self._taken >= self.room or not self._waiting:
            return None
        path = min(self._waiting, key=lambda path: [self._had[part] for part in _parts(path)])
        request = self._waiting[path].popleft()
        for part in _parts(path):
            self._count(part, 1 if request.choices is not None else request.n * request.max_tokens)
        self._inside[request.id] = 1 if request.choices is not None else request.n
        self._taken += self._inside[request.id]
        if not self._waiting[path]:
            del self._waiting[path]
            self._forget()
        return request

    def end(self, ids: Sequence[int]) -> None:
        """Remove requests that have ended. They may be waiting or in the engine."""
        outside = {one for one in ids if one not in self._inside}
        self._taken -= sum(self._inside.pop(one, 0) for one in ids)
        if outside:
            kept = {
                path: deque(request for request in line if request.id not in outside)
                for path, line in self._waiting.items()
            }
            self._waiting = {path: line for path, line in kept.items() if line}
            self._forget()

    def _count(self, part: Part, tokens: int) -> None:
        """Add tokens to what a part has had, and its fair share of them to `_now` of its whole."""
        whole = part[:-1]
        beside = {path[: len(part)] for path in self._waiting if path[: len(whole)] == whole}
        self._had[part] += tokens
        self._now[whole] = self._now.get(whole, 0.0) + tokens / len(beside)

    def _forget(self) -> None:
        """Drop the counts of parts that do not wait, except of parts that have had more than `_now` of their whole."""
        waiting: set[Part] = {part for path in self._waiting for part in ((), *_parts(path))}
        self._now = {whole: now for whole, now in self._now.items() if whole in waiting}
        self._had = {
            part: had for part, had in self._had.items() if part in waiting or had > self._now.get(part[:-1], had)
        }


def _parts(path: Part) -> list[Part]:
    """All beginnings of a share, the shortest first; the last is the share itself."""
    return [path[:length] for length in range(1, len(path) + 1)]

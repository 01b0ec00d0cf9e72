"""Which search starts next: an engine's places are shared by work, between clients and between each client's jobs.

In: jobs (a client, and the budget of each of their searches), and which searches have ended. Out: searches that may
start. Work is counted in tokens of budget, so that a job counts as n × budget. The next search is one of the client
that has been served fewest tokens, and there of the job that has been served fewest.

Source: weighted fair queueing, Demers, Keshav and Shenker 1989, "Analysis and simulation of a fair queueing algorithm".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

JobT = TypeVar("JobT", bound=Hashable)
LIGHT = 4
"""A job is light if its budgets add up to at most so many default budgets."""


def extra_places(places: int) -> int:
    """Additional places, for light jobs that arrive while long searches hold all the others."""
    return places // 4


@dataclass(slots=True)
class _Client:
    """served: tokens of budget. start: what a job that arrives now counts as served. jobs: in the queue or running."""

    served: float
    start: float = 0.0
    jobs: int = 0


@dataclass(slots=True)
class _JobState:
    """served: tokens of budget that its searches were started with, on top of its client's `start` at arrival.
    extra: those of its running searches that hold an extra place."""

    client: str
    budgets: Sequence[int]
    served: float
    waiting: deque[int]
    active: set[int] = field(default_factory=set)
    extra: set[int] = field(default_factory=set)


class FairQueue(Generic[JobT]):
    """The jobs of all clients, waiting and running.

    Args:
        places: searches that run at a time, extra places not counted (≥ 1).
        unit: tokens of a default budget (≥ 1).
    """

    def __init__(self, places: int, unit: int) -> None:
        self._places, self._unit = places, unit
        self._jobs: dict[JobT, _JobState] = {}
        self._clients: dict[str, _Client] = {}
        self._start = 0.0
        self._extra = 0
        self.active = 0
        self.waiting = 0

    @property
    def jobs(self) -> list[JobT]:
        """The jobs that have a waiting or a running search, in order of arrival."""
        return list(self._jobs)

    def add(self, job: JobT, client: str, budgets: Sequence[int]) -> None:
        """Add a job; its searches wait. budgets: one per search, in tokens."""
        owner = self._clients.setdefault(client, _Client(self._start))
        owner.jobs += 1
        self._jobs[job] = _JobState(client, budgets, owner.start, deque(range(len(budgets))))
        self.waiting += len(budgets)

    def take(self) -> tuple[JobT, int] | None:
        """Start the next search. Returns (job, index of the search), or None if none may start."""
        able = [job for job, state in self._jobs.items() if state.waiting]
        if not able:
            return None
        able.sort(key=self._rank)
        if self.active - self._extra < self._places:
            return self._begin(able[0], extra=False)
        if self._extra < extra_places(self._places):
            light = next((job for job in able if self._light(self._jobs[job])), None)
            return None if light is None else self._begin(light, extra=True)
        return None

    def end(self, job: JobT, index: int) -> None:
        """Mark a running search as ended. A search that is not running changes nothing."""
        state = self._jobs.get(job)
        if state is None or index not in state.active:
            return
        state.active.remove(index)
        self.active -= 1
        self._extra -= index in state.extra
        state.extra.discard(index)
        if not state.active and not state.waiting:
            self._forget(job)

    def drop(self, job: JobT) -> tuple[int, list[int]]:
        """Remove a job. Returns how many of its searches were waiting, and which were running."""
        state = self._jobs.get(job)
        if state is None:
            return 0, []
        waiting, active = len(state.waiting), sorted(state.active)
        self.waiting -= waiting
        self.active -= len(active)
        self._extra -= len(state.extra)
        self._forget(job)
        return waiting, active

    def running(self, job: JobT, index: int) -> bool:
        """Whether a search is running."""
        return job in self._jobs and index in self._jobs[job].active

    def _rank(self, job: JobT) -> tuple[float, float]:
        state = self._jobs[job]
        return self._clients[state.client].served, state.served

    def _light(self, state: _JobState) -> bool:
        return not state.active and sum(state.budgets) <= LIGHT * self._unit

    def _begin(self, job: JobT, *, extra: bool) -> tuple[JobT, int]:
        state = self._jobs[job]
        index = state.waiting.popleft()
        budget = state.budgets[index]
        state.active.add(index)
        if extra:
            state.extra.add(index)
            self._extra += 1
        state.served += budget
        client = self._clients[state.client]
        client.served += budget
        client.start += budget / client.jobs
        self._start += budget / len(self._clients)
        self.waiting -= 1
        self.active += 1
        return job, index

    def _forget(self, job: JobT) -> None:
        state = self._jobs.pop(job)
        client = self._clients[state.client]
        client.jobs -= 1
        if not client.jobs:
            del self._clients[state.client]

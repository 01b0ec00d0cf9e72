"""Which search is next: places in the engine are shared by work, between clients and between each client's requests.

In: jobs (a client, and the budget of each of their searches), and which searches have ended. Out: searches that may
start. Work is counted in tokens of budget, so that a request counts as n × budget. Each client, and within it each
request, has had so much; the one that has had least is next (weighted fair queueing: Demers, Keshav and Shenker 1989).
Knows neither engine nor time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

JobT = TypeVar("JobT", bound=Hashable)
LIGHT = 4
"""A job is light up to so many budgets of the default size."""


def extra_places(places: int) -> int:
    """Places beside the others, for light jobs that would find all taken by long searches."""
    return places // 4


@dataclass(slots=True)
class _Client:
    """had: tokens of budget. now: what a job that comes now counts as having had. jobs: that are here."""

    had: float
    now: float = 0.0
    jobs: int = 0


@dataclass(slots=True)
class _Standing:
    """A job. had: tokens of budget that its searches were started with, and what it came with. beside: those of its
    searches under way that have an extra place."""

    client: str
    budgets: Sequence[int]
    had: float
    waiting: deque[int]
    active: set[int] = field(default_factory=set)
    beside: set[int] = field(default_factory=set)


class Line(Generic[JobT]):
    """See the module.

    places: searches at a time, but for the extra places. unit: tokens of a usual budget.
    """

    def __init__(self, places: int, unit: int) -> None:
        self._places, self._unit = places, unit
        self._jobs: dict[JobT, _Standing] = {}
        self._clients: dict[str, _Client] = {}
        self._now = 0.0
        self._beside = 0
        self.active = 0
        self.waiting = 0

    @property
    def jobs(self) -> list[JobT]:
        """All that have a search that waits or is under way, first come first."""
        return list(self._jobs)

    def add(self, job: JobT, client: str, budgets: Sequence[int]) -> None:
        """Take a job in; its searches wait."""
        owner = self._clients.setdefault(client, _Client(self._now))
        owner.jobs += 1
        self._jobs[job] = _Standing(client, budgets, owner.now, deque(range(len(budgets))))
        self.waiting += len(budgets)

    def take(self) -> tuple[JobT, int] | None:
        """The search that is to start now, if one is; it is under way from here on."""
        able = [job for job, standing in self._jobs.items() if standing.waiting]
        if not able:
            return None
        able.sort(key=self._rank)
        if self.active - self._beside < self._places:
            return self._start(able[0], beside=False)
        if self._beside < extra_places(self._places):
            light = next((job for job in able if self._light(self._jobs[job])), None)
            return None if light is None else self._start(light, beside=True)
        return None

    def end(self, job: JobT, index: int) -> None:
        """A search under way is over. One that is not under way is left alone."""
        standing = self._jobs.get(job)
        if standing is None or index not in standing.active:
            return
        standing.active.remove(index)
        self.active -= 1
        self._beside -= index in standing.beside
        standing.beside.discard(index)
        if not standing.active and not standing.waiting:
            self._forget(job)

    def drop(self, job: JobT) -> tuple[int, list[int]]:
        """Take a job out. Returns how many of its searches waited, and those that were under way."""
        standing = self._jobs.get(job)
        if standing is None:
            return 0, []
        waiting, active = len(standing.waiting), sorted(standing.active)
        self.waiting -= waiting
        self.active -= len(active)
        self._beside -= len(standing.beside)
        self._forget(job)
        return waiting, active

    def under_way(self, job: JobT, index: int) -> bool:
        """Whether a search is under way."""
        return job in self._jobs and index in self._jobs[job].active

    def _rank(self, job: JobT) -> tuple[float, float]:
        standing = self._jobs[job]
        return self._clients[standing.client].had, standing.had

    def _light(self, standing: _Standing) -> bool:
        return not standing.active and sum(standing.budgets) <= LIGHT * self._unit

    def _start(self, job: JobT, *, beside: bool) -> tuple[JobT, int]:
        standing = self._jobs[job]
        index = standing.waiting.popleft()
        budget = standing.budgets[index]
        standing.active.add(index)
        if beside:
            standing.beside.add(index)
            self._beside += 1
        standing.had += budget
        client = self._clients[standing.client]
        client.had += budget
        client.now += budget / client.jobs
        self._now += budget / len(self._clients)
        self.waiting -= 1
        self.active += 1
        return job, index

    def _forget(self, job: JobT) -> None:
        standing = self._jobs.pop(job)
        client = self._clients[standing.client]
        client.jobs -= 1
        if not client.jobs:
            del self._clients[standing.client]

"""Between a driver and its engine: numbers the requests, remembers who asked, and times what the engine takes.

In: requests, each with an owner. Out: completions, each with its owner. Knows neither trees nor journals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mcts_dpo.engines.base import Completion, Engine, Request
from mcts_dpo.search.lasting import EngineDiedError, LastingEngine
from mcts_dpo.search.shares import Shares

Owner = TypeVar("Owner")

DIED = "the engine died"
"""How the reason of a request begins whose engine died."""
_PROBE = -1  # the number of a request that any living engine takes
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SearchClock:
    """Where the time of a search went: CPU seconds of this process, all its threads together.

    engine: inside the engine's `submit` and `poll`. other: everything else of the search: selection, backup, splitting,
    verification, journal. wall: seconds by the clock on the wall, engine and everything else. polls: of the engine.
    """

    engine: float = 0.0
    other: float = 0.0
    wall: float = 0.0
    polls: int = 0

    @property
    def bookkeeping_share(self) -> float:
        """Share of the CPU time that was not the engine's; 0 before anything ran."""
        total = self.engine + self.other
        return self.other / total if total else 0.0


class Desk(Generic[Owner]):
    """The only way of a search to its engine. waiting: requests under way.

    interactive: somebody waits for every answer. An engine that dies (its `submit` or `poll` raises, but for want of
    memory) then answers what is under way with an error that says so; what is sent afterwards is tried again, so that
    an engine that recovers serves it. A request that `submit` raises at, though it takes others, fails alone.
    Otherwise trees are what is wanted: see `lasting`. A completion that the engine never gives back is an error of the
    engine's (RuntimeError), not a wait for ever.
    room: sequences that are in the engine at a time, about; what is sent beyond waits here, and whose share has had
    least goes in next. None: all go in at once, first come, first served.
    """

    def __init__(
        self,
        engine: Engine,
        clock: SearchClock | None = None,
        *,
        interactive: bool = False,
        room: int | None = None,
    ) -> None:
        self._interactive = interactive
        self._end = getattr(engine.tokenizer, "eos_token_id", None) or 0
        self._engine = engine if interactive else LastingEngine(engine)
        self._shares = None if room is None else Shares(room)
        self._owners: dict[int, Owner] = {}
        self._refused: list[Completion] = []
        self._next = 0
        self._clock = clock if clock is not None else SearchClock()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    @property
    def waiting(self) -> int:
        """Requests that were sent and are not back."""
        return len(self._owners)

    def send(self, request: Request, owner: Owner, share: Hashable = None) -> None:
        """Submit a request; its id is given here. share: whose it is, where requests wait for room."""
        self._owners[self._next] = owner
        numbered = replace(request, id=self._next)
        self._next += 1
        if self._shares is None:
            self._submit(numbered)
        else:
            self._shares.add(numbered, share)

    def _submit(self, request: Request) -> None:
        self._lap(engine=False)
        try:
            self._engine.submit(request)
        except EngineDiedError:
            raise
        except Exception as error:  # the engine's, whatever it is: this request fails, the search goes on
            reason = f"the engine refuses the request: {_one_line(error)}" if self._takes_others() else _death(error)
            self._refused.append(Completion(request.id, error=reason))
        self._lap(engine=True)

    def _takes_others(self) -> bool:
        """Whether the engine takes a request that any living engine takes."""
        if not self._interactive:
            return False
        with suppress(Exception):
            self._engine.submit(Request(_PROBE, (self._end,)))
            self._engine.cancel([_PROBE])
            return True
        return False

    def collect(self, patience: float | None = None) -> list[tuple[Owner, Completion]]:
        """Wait for at least one completion, or for `patience` seconds (None: as long as it takes)."""
        if self._shares is not None:
            while (request := self._shares.take()) is not None:
                self._submit(request)
        self._lap(engine=False)
        begun = time.monotonic()
        finished, self._refused = self._refused, []
        try:
            if not finished:
                finished = self._engine.poll() if patience is None else self._engine.poll(patience)
        except EngineDiedError:
            raise
        except Exception as error:
            finished = [Completion(one, error=_death(error)) for one in self._owners]
            with suppress(Exception):  # it may still hold them
                self._engine.cancel(list(self._owners))
        self._lap(engine=True)
        self._clock.polls += 1
        gave_up = patience is not None and time.monotonic() - begun >= patience
        if not finished and self._owners and not gave_up:
            raise RuntimeError(f"the engine lost {len(self._owners)} of {self._next} requests")
        self._forget([completion.id for completion in finished])
        return [(self._owners.pop(completion.id), completion) for completion in finished]

    def cancel(self, mine: Callable[[Owner], bool]) -> list[Owner]:
        """Give up the requests of the owners that `mine` picks. Returns them, in the order in which they were sent."""
        ids = [one for one, owner in self._owners.items() if mine(owner)]
        self._refused = [completion for completion in self._refused if completion.id not in ids]
        self._lap(engine=False)
        with suppress(Exception):  # an engine that dies of it has nothing under way either
            self._engine.cancel(ids)
        self._lap(engine=True)
        self._forget(ids)
        return [self._owners.pop(one) for one in ids]

    def _forget(self, ids: Sequence[int]) -> None:
        if self._shares is not None:
            self._shares.end(ids)

    def close(self) -> None:
        """Count the time up to now."""
        self._lap(engine=False)

    def _lap(self, *, engine: bool) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        if engine:
            self._clock.engine += cpu - self._cpu
        else:
            self._clock.other += cpu - self._cpu
        self._clock.wall += wall - self._wall
        self._cpu, self._wall = cpu, wall


def _death(error: Exception) -> str:
    """The reason of those whose engine died, one line; the log has the whole of it.

    Want of memory is raised again: it comes back with the next requests, and whoever runs the search can say what to
    change.
    """
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        raise error
    _log.warning("the engine died", exc_info=error)
    return f"{DIED}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}{': ' if said else ''}{said}"

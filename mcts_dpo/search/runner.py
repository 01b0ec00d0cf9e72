"""Runs many coroutines over one engine: it submits the work that they ask for and hands the results back.

In: an engine, and groups of coroutines (engines/coroutine.py). Each group has a key and may have a log. Out: what the
coroutines return. A runner has one of two schedules:

- Synchronous: no coroutine is resumed before all work of the round is back. Then all are resumed in order. The same
  coroutines give the same bytes on an engine that repeats itself.
- Asynchronous: a coroutine is resumed as soon as one of its results is back. No coroutine waits for another.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from mcts_dpo.engines.base import Engine, Request
from mcts_dpo.engines.coroutine import Call, Coroutine, RequestError, Returned, Work
from mcts_dpo.engines.retry import RetryingEngine
from mcts_dpo.search.result_log import ResultLog, fingerprint, fits
from mcts_dpo.search.runner_clock import RunnerClock
from mcts_dpo.search.shares import Shares

ResultT = TypeVar("ResultT")
Schedule = Literal["synchronous", "asynchronous"]

_log = logging.getLogger(__name__)

CALL_THREADS = 4
"""Threads that one function of a `Call` has at most. While all are busy, its further calls gather for the next one."""
ALL_CALL_THREADS = 32
CALL_PATIENCE = 0.02
"""Seconds that one poll of the engine may wait while a `Call` runs in a thread."""


@dataclass(slots=True, eq=False)
class Ended(Generic[ResultT]):
    """A group that has ended. results: one per coroutine, in order; a RequestError where a request was refused."""

    key: Hashable
    results: list[ResultT | RequestError]


@dataclass(slots=True, eq=False)
class _Member(Generic[ResultT]):
    """One coroutine of a group.

    number: how many pieces of work it has yielded. outstanding: work without a result so far, by number. finished:
    results that are back and not handed over yet.
    """

    group: _Group[ResultT]
    index: int
    coroutine: Coroutine[ResultT]
    number: int = 0
    outstanding: dict[int, Work] = field(default_factory=dict)
    finished: list[Returned] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Group(Generic[ResultT]):
    """Coroutines that were admitted together. waiting: not started yet. alive: started and not ended, by index."""

    key: Hashable
    log: ResultLog | None
    results: list[Any]
    share: Hashable = None
    waiting: deque[_Member[ResultT]] = field(default_factory=deque)
    alive: dict[int, _Member[ResultT]] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return not self.waiting and not self.alive


_Owner = tuple[_Member[Any], int]


@dataclass(frozen=True, slots=True)
class _Raised:
    """The error that the function of a call raised. It replaces the call's result."""

    error: Exception


def _results_of(calls: Sequence[Call]) -> list[list[Any] | _Raised]:
    """Call one function once for the items of all calls. If that raises, each call is tried alone."""
    items = [item for call in calls for item in call.items]
    try:
        results = list(calls[0].function(items))
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
    except Exception as error:
        if len(calls) == 1:
            return [_Raised(error)]
        return [one for call in calls for one in _results_of([call])]
    given = iter(results)
    return [[next(given) for _ in call.items] for call in calls]


def _started(call: Call) -> Future[list[list[Any] | _Raised]]:
    """Start a call whose function returns a future. The result is that of `_results_of`."""
    ended: Future[list[list[Any] | _Raised]] = Future()

    def end(future: Future[Any]) -> None:
        ended.set_result(_results_of([replace(call, function=lambda _: future.result())]))

    try:
        call.function(call.items).add_done_callback(end)
    except Exception as error:
        ended.set_result([_Raised(error)])
    return ended


class Runner(Generic[ResultT]):
    """Runs groups of coroutines over one engine (see the module).

    alive:   how many coroutines run at a time. Further ones wait, first come, first served. None: twice as many as the
             engine runs sequences, so that its queue always holds work. A synchronous runner runs all of them.
    clock:   the time spent is added to it.
    contain: True: if a coroutine or one of its calls raises, only that coroutine ends, with a RequestError as its
             result. Lack of memory is then an ordinary crash of the engine. False: `step` raises the error.
    room:    about how many sequences are in the engine at a time, ≥ 1. Further requests wait here, and the share that
             has had least is next (`admit` sets a group's share). None: all requests are submitted at once.
    """

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule = "asynchronous",
        *,
        alive: int | None = None,
        clock: RunnerClock | None = None,
        contain: bool = False,
        room: int | None = None,
    ) -> None:
        self._engine = RetryingEngine(engine, memory_is_fatal=not contain)
        self._contain = contain
        self._shares = None if room is None else Shares(room)
        self._synchronous = schedule == "synchronous"
        self._alive = 1 << 60 if self._synchronous else alive or alive_by_default(engine)
        self._groups: list[_Group[ResultT]] = []
        self._crowd = 0  # coroutines being run
        self._requests: dict[int, _Owner] = {}
        self._next = 0
        self._unsent: list[tuple[_Owner, Work]] = []
        self._calls: dict[Future[list[list[Any] | _Raised]], list[tuple[_Owner, Call]]] = {}
        self._waiting_calls: dict[Callable[..., Any], list[tuple[_Owner, Call]]] = {}  # by function
        self._threads: ThreadPoolExecutor | None = None
        self._ended: list[Ended[ResultT]] = []
        self._clock = clock if clock is not None else RunnerClock()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    # --- what callers use ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any group is left, or has ended and was not returned by `step` yet."""
        return bool(self._groups or self._ended)

    @property
    def has_room(self) -> bool:
        """Whether one more coroutine would start at once."""
        return self._crowd + sum(len(group.waiting) for group in self._groups) < self._alive

    def admit(
        self,
        key: Hashable,
        coroutines: Sequence[Coroutine[ResultT]],
        log: ResultLog | None = None,
        share: Hashable = None,
    ) -> None:
        """Add a group of coroutines. If its log holds results, the coroutines continue from there.

        key:   identifies the group; unique among the admitted groups.
        log:   from the first entry that these coroutines do not ask for, its entries are set aside.
        share: whose requests these are (see `Shares`).
        """
        group: _Group[ResultT] = _Group(key, log, [None] * len(coroutines), share)
        group.waiting.extend(_Member(group, index, one) for index, one in enumerate(coroutines))
        self._groups.append(group)
        if log is not None:
            self._replay(group, log)
        self._collect_ended()

    def step(self, patience: float | None = None) -> list[Ended[ResultT]]:
        """Start coroutines, send their work, wait for results once and hand them over.

        Returns the groups that have ended. If work is outstanding, it waits for at least one result, but at most
        `patience` seconds and one step of the engine (None: without limit). Raises EngineDiedError.
        """
        self._start()
        if not self._ended:
            self._send()
            for owner, result in self._collect(patience):
                self._finish(owner, result)
            self._resume()
        self._collect_ended()
        if self._groups and not self._ended and not (self._requests or self._calls or self._unsent) and self._crowd:
            raise RuntimeError("coroutines wait, and nothing is out for them")
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, key: Hashable) -> None:
        """Remove a group and cancel its requests, in the engine too. An unknown key is ignored."""
        group = next((group for group in self._groups if group.key == key), None)
        if group is None:
            return
        self._groups.remove(group)
        ids = [one for one, (member, _) in self._requests.items() if member.group is group]
        for one in ids:
            del self._requests[one]
        self._unsent = [(owner, work) for owner, work in self._unsent if owner[0].group is not group]
        self._free(ids)
        self._lap(engine=False)
        with suppress(Exception):  # an engine that dies here has no requests left either
            self._engine.cancel(ids)
        self._lap(engine=True)
        self._crowd -= len(group.alive)
        for member in (*group.alive.values(), *group.waiting):
            member.outstanding.clear()  # a call in a thread may still return
            self._close(member)

    def close(self) -> None:
        """End the threads and add the time up to now to the clock."""
        self._lap(engine=False)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _close(self, member: _Member[ResultT]) -> None:
        try:
            member.coroutine.close()
        except Exception as error:
            if not self._contain:
                raise
            _log.warning("a search failed as it was given up", exc_info=error)

    # --- coroutines ----------------------------------------------------------------------------------

    def _start(self) -> None:
        for group in self._groups:
            while group.waiting and self._crowd < self._alive:
                self._begin(group.waiting.popleft())

    def _begin(self, member: _Member[ResultT]) -> None:
        member.group.alive[member.index] = member
        self._crowd += 1
        self._advance(member, None)

    def _advance(self, member: _Member[ResultT], results: list[Returned] | None) -> None:
        """Resume a coroutine (see `_run`). results: None starts it."""
        coroutine = member.coroutine
        self._run(member, lambda: next(coroutine) if results is None else coroutine.send(results))

    def _run(self, member: _Member[ResultT], resume: Callable[[], Sequence[Work]]) -> None:
        """Resume a coroutine and store the work that it asks for, or its result if it ends."""
        try:
            new = resume()
            while not new and not member.outstanding:
                new = member.coroutine.send([])
        except StopIteration as stop:
            self._over(member, stop.value)
        except RequestError as error:
            self._over(member, error)
        except Exception as error:
            if not self._contain:
                raise
            _log.warning("a search failed", exc_info=error)
            self._over(member, RequestError(f"the search failed ({type(error).__name__}: {error})"))
        else:
            for work in new:
                member.outstanding[member.number] = work
                self._unsent.append(((member, member.number), work))
                member.number += 1

    def _over(self, member: _Member[ResultT], result: Any) -> None:
        member.group.results[member.index] = result
        del member.group.alive[member.index]
        self._crowd -= 1
        member.finished.clear()
        if member.outstanding:  # it ended while work was out: one of several requests was refused
            member.outstanding.clear()
            self._forget(member)

    def _forget(self, member: _Member[ResultT]) -> None:
        ids = [one for one, (owner, _) in self._requests.items() if owner is member]
        for one in ids:
            del self._requests[one]
        self._unsent = [(owner, work) for owner, work in self._unsent if owner[0] is not member]
        self._free(ids)
        with suppress(Exception):
            self._engine.cancel(ids)

    def _finish(self, owner: _Owner, result: Any) -> None:
        """Log a result and hand it over: now (asynchronous) or at the end of the round (synchronous)."""
        member, number = owner
        work = member.outstanding.pop(number, None)
        if work is None:  # another result of the same poll has ended the coroutine
            return
        if isinstance(result, _Raised):
            error = result.error
            self._run(member, lambda: member.coroutine.throw(error))
            return
        if member.group.log is not None:
            member.group.log.record(member.index, number, work, result)
        self._hand_on(member, Returned(work, result))

    def _hand_on(self, member: _Member[ResultT], returned: Returned) -> None:
        if self._synchronous:
            member.finished.append(returned)
        else:
            self._advance(member, [returned])

    def _resume(self) -> None:
        """End a round (synchronous): once all results are back, resume all coroutines in order."""
        if not self._synchronous or self._requests or self._calls or self._unsent:
            return
        for group in self._groups:
            self._resume_group(group)

    def _resume_group(self, group: _Group[ResultT]) -> None:
        for member in list(group.alive.values()):
            if member.finished:
                finished, member.finished = member.finished, []
                self._advance(member, finished)

    def _collect_ended(self) -> None:
        over = [group for group in self._groups if group.over]
        if over:
            self._groups = [group for group in self._groups if not group.over]
            self._ended += [Ended(group.key, group.results) for group in over]

    # --- replay --------------------------------------------------------------------------------------

    def _replay(self, group: _Group[ResultT], log: ResultLog) -> None:
        """Hand over the results of the log in its order, as if the engine returned them now. Nothing is sent."""
        if log.entries and self._synchronous:
            while group.waiting:
                self._begin(group.waiting.popleft())
        for position, entry in enumerate(list(log.entries)):
            waiting = next((one for one in group.waiting if one.index == entry.coroutine), None)
            if waiting is not None:
                group.waiting.remove(waiting)
                self._begin(waiting)
            member = group.alive.get(entry.coroutine)
            work = member.outstanding.get(entry.number) if member is not None else None
            if member is None or work is None or fingerprint(work) != entry.work or not fits(work, entry.result):
                log.set_aside_from(position, f"it holds a result that tree {entry.coroutine} does not ask for")
                return
            del member.outstanding[entry.number]
            self._hand_on(member, Returned(work, entry.result))
            if self._synchronous and not any(one.outstanding for one in group.alive.values()):
                self._resume_group(group)

    # --- work ----------------------------------------------------------------------------------------

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        for owner, work in unsent:
            if owner[1] not in owner[0].outstanding:  # its result came from the log
                continue
            if isinstance(work, Request):
                self._submit(owner, work)
            elif work.starts:
                self._calls[_started(work)] = [(owner, work)]
            else:
                self._waiting_calls.setdefault(work.function, []).append((owner, work))
        self._start_calls()

    def _submit(self, owner: _Owner, request: Request) -> None:
        self._requests[self._next] = owner
        numbered = replace(request, id=self._next)
        self._next += 1
        if self._shares is None:
            self._put_in(numbered)
        else:
            self._shares.add(numbered, owner[0].group.share)

    def _put_in(self, request: Request) -> None:
        self._lap(engine=False)
        self._engine.submit(request)
        self._lap(engine=True)

    def _start_calls(self) -> None:
        """Call each function that has a free thread. A slow function never takes the threads of the others."""
        running = Counter(together[0][1].function for together in self._calls.values())
        for function in [one for one in self._waiting_calls if running[one] < CALL_THREADS]:
            waiting = self._waiting_calls.pop(function)
            if wanted := [(owner, one) for owner, one in waiting if owner[1] in owner[0].outstanding]:
                self._call(wanted)

    def _call(self, together: list[tuple[_Owner, Call]]) -> None:
        """Call a function once for all its pending items: directly if synchronous, else in a thread."""
        calls = [call for _, call in together]
        if self._synchronous:
            future: Future[list[list[Any] | _Raised]] = Future()
            future.set_result(_results_of(calls))
        else:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(ALL_CALL_THREADS, "mcts-dpo-call")
            future = self._threads.submit(_results_of, calls)
        self._calls[future] = together

    def _collect(self, patience: float | None) -> list[tuple[_Owner, Any]]:
        """Wait for a result, at most `patience` seconds; at most CALL_PATIENCE if calls and requests are both out."""
        if not self._calls:
            return self._poll(patience)
        if not self._requests:
            wait(self._calls, timeout=patience, return_when="FIRST_COMPLETED")
            return list(self._called())
        found = list(self._called())
        limit = CALL_PATIENCE if patience is None else min(patience, CALL_PATIENCE)
        return found + self._poll(0.0 if found else limit, may_be_empty=True)

    def _called(self) -> Iterator[tuple[_Owner, Any]]:
        for future in [future for future in self._calls if future.done()]:
            together = self._calls.pop(future)
            for (owner, _), result in zip(together, future.result(), strict=True):
                if owner[1] in owner[0].outstanding:  # else it was cancelled in the meantime
                    yield owner, result
        self._start_calls()

    def _poll(self, patience: float | None, *, may_be_empty: bool = False) -> list[tuple[_Owner, Any]]:
        if not self._requests:
            return []
        while self._shares is not None and (request := self._shares.take()) is not None:
            self._put_in(request)
        self._lap(engine=False)
        begun = time.monotonic()
        finished = self._engine.poll() if patience is None else self._engine.poll(patience)
        self._lap(engine=True)
        self._clock.polls += 1
        gave_up = patience is not None and time.monotonic() - begun >= patience
        if not finished and not gave_up and not may_be_empty:
            raise RuntimeError(f"the engine lost {len(self._requests)} of {self._next} requests")
        self._free([completion.id for completion in finished])
        return [(self._requests.pop(completion.id), completion) for completion in finished]

    def _free(self, ids: Sequence[int]) -> None:
        if self._shares is not None:
            self._shares.end(ids)

    def _lap(self, *, engine: bool) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        if engine:
            self._clock.engine += cpu - self._cpu
        else:
            self._clock.other += cpu - self._cpu
        self._clock.wall += wall - self._wall
        self._cpu, self._wall = cpu, wall


def alive_by_default(engine: Engine) -> int:
    """The default number of coroutines that run at a time: twice as many as the engine runs sequences."""
    return 2 * engine.slots


def run(
    coroutines: Sequence[Coroutine[ResultT]],
    engine: Engine,
    schedule: Schedule = "asynchronous",
    *,
    clock: RunnerClock | None = None,
    on_result: Callable[[int], None] = lambda _: None,
) -> list[ResultT | RequestError]:
    """Run all coroutines to their end. Returns their results in order; a RequestError where a request was refused.

    on_result: called after each end, with the number of coroutines that have ended. Raises EngineDiedError.
    """
    results: dict[int, ResultT | RequestError] = {}
    with closing(Runner[ResultT](engine, schedule, clock=clock)) as runner:
        for index, coroutine in enumerate(coroutines):
            runner.admit(index, [coroutine])
        while runner.busy:
            for ended in runner.step():
                assert isinstance(ended.key, int)
                results[ended.key] = ended.results[0]
                on_result(len(results))
    return [results[index] for index in range(len(coroutines))]

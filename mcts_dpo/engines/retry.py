"""One retry policy for every engine: a failed request is retried, and a crash costs only the request that causes it.

In: an engine. Out: the same requests served, or EngineDiedError. Two cases:

- A request comes back with an error. It is sent again, once, after a health check has shown that the engine serves
  other requests. An error that comes twice is the request's own. An error marked `final` is never retried.
- The engine crashes: its `submit` or `poll` raises, except when memory runs out. The requests in flight are sent again.
  After a second crash with nothing served in between, or a third crash during one request, the requests are
  quarantined: they are sent one at a time, each to an engine that has passed a health check. A request that crashes the
  engine when it is sent alone fails with that reason.

An engine that fails its health check is dead: EngineDiedError.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mcts_dpo.engines.base import Completion, Engine, Request
from mcts_dpo.engines.coroutine import Coroutine, Returned, Work

ResultT = TypeVar("ResultT")

_HEALTH_CHECK = -1  # the id of a request that every working engine serves
_CRASHES = 3  # crashes during one request after which it is quarantined
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
_log = logging.getLogger(__name__)


class EngineDiedError(RuntimeError):
    """The engine serves no requests any more. The message is one line."""


@dataclass(slots=True)
class RetryingEngine:
    """An engine whose failures cost only the request that caused them. Ids of requests are ≥ 0.

    memory_is_fatal: an error for lack of memory is raised at once, since the user must change a setting; else it is a
                  crash.
    in_flight:    sent to the engine and not back.
    held:         back with an error; they wait for a health check.
    retried:      ids of requests that were sent a second time.
    crashes:      of the engine since it last served a request.
    seen_crashes: by request, the crashes while it was in flight.
    quarantined:  to be sent one at a time. trial: the id of the one in flight.
    fatal:        errors of requests that crashed the engine when they were sent alone; the next `poll` returns them.
    """

    engine: Engine
    memory_is_fatal: bool = True
    in_flight: dict[int, Request] = field(default_factory=dict)
    held: list[tuple[Request, Completion]] = field(default_factory=list)
    retried: set[int] = field(default_factory=set)
    crashes: int = 0
    seen_crashes: Counter[int] = field(default_factory=Counter)
    quarantined: deque[Request] = field(default_factory=deque)
    trial: int | None = None
    fatal: list[Completion] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        """As `Engine.submit`. Raises EngineDiedError."""
        if self.trial is not None:
            self.quarantined.append(request)
        else:
            self._send(request)

    def _send(self, request: Request) -> None:
        self.in_flight[request.id] = request
        try:
            self.engine.submit(request)
        except Exception as error:
            self._recover(error)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """As `Engine.poll`. Raises EngineDiedError."""
        while True:
            try:
                finished = self.engine.poll(patience)
            except Exception as error:
                self._recover(error)
                finished = []
                if not self.fatal:
                    continue
            given = self._sorted(finished)
            if given or not finished:
                return given

    def cancel(self, ids: Iterable[int]) -> None:
        """As `Engine.cancel`."""
        gone = set(ids)
        self.held = [(request, completion) for request, completion in self.held if request.id not in gone]
        self.quarantined = deque(request for request in self.quarantined if request.id not in gone)
        self.fatal = [completion for completion in self.fatal if completion.id not in gone]
        for one in gone:
            self.in_flight.pop(one, None)
            self.seen_crashes.pop(one, None)
        self.retried -= gone
        try:
            self.engine.cancel(gone)
        finally:
            if self.trial in gone:
                self._next()
            self._check_health()

    def _sorted(self, finished: Sequence[Completion]) -> list[Completion]:
        """The completions that go to the caller; the others are held or were health checks."""
        given, self.fatal = self.fatal, []
        # All are removed before any is sent: a crash while sending sends everything in `in_flight` again.
        arrived = [(self.in_flight.pop(completion.id), completion) for completion in finished]
        for request, completion in arrived:
            self.seen_crashes.pop(completion.id, None)
            alive = completion.error is None or completion.final
            if alive:
                self.crashes = 0
            if completion.id == self.trial:
                if completion.id != _HEALTH_CHECK:
                    given.append(completion)
                elif not alive:
                    self._give_up(str(completion.error))
                self._next()
            elif completion.id == _HEALTH_CHECK:
                given += self._released(completion, alive)
            elif alive:
                given.append(completion)
            else:
                self.held.append((request, completion))
        self._check_health()
        self.retried.difference_update(completion.id for completion in given)
        return given

    def _check_health(self) -> None:
        """Start a health check if requests are held and none is in flight; cancel one that no request waits for."""
        if self.held and self.trial is None and _HEALTH_CHECK not in self.in_flight:
            self._send(self._health_check())
        if self.in_flight.keys() == {_HEALTH_CHECK} and not (self.held or self.quarantined):
            self.in_flight.clear()
            self.trial = None
            self.engine.cancel([_HEALTH_CHECK])

    def _health_check(self) -> Request:
        end = self.engine.tokenizer.eos_token_id
        return Request(id=_HEALTH_CHECK, prefix=(end or 0,), max_tokens=1)

    def _next(self) -> None:
        """Send the next quarantined request; without one, the quarantine ends."""
        self.trial = None
        if self.quarantined:
            self._try(self.quarantined.popleft())

    def _try(self, request: Request) -> None:
        self.trial = request.id
        self._send(request)

    def _released(self, check: Completion, alive: bool) -> list[Completion]:
        """After a health check: the held errors that have come twice. The other held requests are sent again."""
        held, self.held = self.held, []
        if not alive:
            self._give_up(str((held[0][1] if held else check).error))
        # All are sorted before any is sent: a crash while sending changes `retried` and `in_flight`.
        twice = [completion for request, completion in held if request.id in self.retried]
        once = [request for request, _ in held if request.id not in self.retried]
        self.retried.update(request.id for request in once)
        for request in once:
            self.submit(request)
        return twice

    def _recover(self, error: Exception) -> None:
        """After a crash: send the requests in flight again."""
        if isinstance(error, EngineDiedError):
            raise error
        if self.memory_is_fatal and _lacks_memory(error):
            raise error  # a retry would fail again; the user must change a setting
        said = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}{': ' if said else ''}{said}"
        self.crashes += 1
        with suppress(Exception):  # it may still hold them
            self.engine.cancel(list(self.in_flight))
        if self.trial == _HEALTH_CHECK:
            self._give_up(reason, error)
        if self.trial is not None:
            del self.in_flight[self.trial]
            self.fatal.append(
                Completion(self.trial, error=f"the engine crashed on this request, twice or more ({reason})")
            )
            self._try(self._health_check())
            return
        self.seen_crashes.update(list(self.in_flight))
        alone = self.crashes > 1 or any(self.seen_crashes[one] >= _CRASHES for one in self.in_flight)
        how = "one by one" if alone else "again"
        _log.warning("the engine crashed (%s); the requests in flight are sent %s", reason, how, exc_info=error)
        sent = [request for one, request in self.in_flight.items() if one != _HEALTH_CHECK]
        if alone:
            self.in_flight.clear()
            self.quarantined.extend(sent)
            self._try(self._health_check())
            return
        for request in list(self.in_flight.values()):
            if self.trial is not None:
                return  # it crashed again on one of these: all of them are quarantined now
            self._send(request)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        with suppress(Exception):
            self.engine.cancel(list(self.in_flight))
        self.in_flight.clear()
        self.quarantined.clear()
        self.trial = None
        raise EngineDiedError(f"the engine serves no requests any more ({reason})") from error


def serve(engine: Engine, coroutine: Coroutine[ResultT]) -> ResultT:
    """Run a coroutine that yields only requests, over an engine that nothing else uses, and wait for its result.

    Raises EngineDiedError.
    """
    retrying, sent = RetryingEngine(engine), dict[int, Work]()
    count = 0
    try:
        new = next(coroutine)
        while True:
            for work in new:
                assert isinstance(work, Request)
                sent[count] = work
                retrying.submit(replace(work, id=count))
                count += 1
            new = coroutine.send([Returned(sent.pop(one.id), one) for one in retrying.poll()])
    except StopIteration as stop:
        result: ResultT = stop.value
        return result


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in _OUT_OF_MEMORY)

"""One retry policy for every engine: a request that failed is tried again, and a crash costs only what caused it.

In: an engine. Out: the same requests served, or EngineDiedError. Two cases:

- A request comes back with an error. It is sent again, once, after a health check has shown that the engine serves
  other requests. An error that comes twice is the request's own. An error marked `final` is never retried.
- The engine crashes: its `submit` or `poll` raises, but for want of memory. What was under way is sent again. After a
  second crash with nothing served in between, or a third crash under one request, the requests are quarantined: they
  are sent one at a time, each to an engine that has passed a health check. A request that crashes the engine when it
  is alone fails with that reason.

An engine that fails its health check is dead: EngineDiedError. Knows neither trees nor journals.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mcts_dpo.engines.base import Completion, Engine, Request

_HEALTH_CHECK = -1  # the number of the request that any living engine serves
_CRASHES = 3  # of the engine that a request may have been there at before it is looked at alone
_WANT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
_log = logging.getLogger(__name__)


class EngineDiedError(RuntimeError):
    """The engine serves nothing any more. The message is one line."""


@dataclass(slots=True)
class RetryingEngine:
    """An engine whose failures cost only the request that caused them. Ids of requests are ≥ 0.

    memory_is_fatal: want of memory is raised at once, for whoever can say what to change; else it is a crash.
    in_flight:    sent to the engine and not back.
    held:         back with an error; they wait for a health check.
    retried:      ids of requests that were sent a second time.
    crashes:      of the engine since it last served anything.
    seen_crashes: by request, the crashes while it was in flight.
    quarantined:  to be sent one at a time. trial: the id of the one that is out now.
    fatal:        errors of requests that crashed the engine alone; the next `poll` returns them.
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
        """What may be passed on of what came back."""
        given, self.fatal = self.fatal, []
        # All are taken out before any is sent: the engine may die of sending, and then these are not to be sent again.
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
        """See to it that what is held waits for a health check, and that none is under way for nobody."""
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
        """Try the next quarantined request; where there is none, all is as before."""
        self.trial = None
        if self.quarantined:
            self._try(self.quarantined.popleft())

    def _try(self, request: Request) -> None:
        self.trial = request.id
        self._send(request)

    def _released(self, sign: Completion, alive: bool) -> list[Completion]:
        """The errors that were held and have come twice, if the engine lives; the other requests are sent again."""
        held, self.held = self.held, []
        if not alive:
            self._give_up(str((held[0][1] if held else sign).error))
        # Sorted out before any is sent: the engine may die of sending, and then they are elsewhere than under way.
        twice = [completion for request, completion in held if request.id in self.retried]
        once = [request for request, _ in held if request.id not in self.retried]
        self.retried.update(request.id for request in once)
        for request in once:
            self.submit(request)
        return twice

    def _recover(self, error: Exception) -> None:
        """After a death: send again what was under way."""
        if isinstance(error, EngineDiedError):
            raise error
        if self.memory_is_fatal and _wants_memory(error):
            raise error  # it would come back; whoever runs the search can say what to change
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
        _log.warning("the engine crashed (%s); what was under way is sent %s", reason, how, exc_info=error)
        sent = [request for one, request in self.in_flight.items() if one != _HEALTH_CHECK]
        if alone:
            self.in_flight.clear()
            self.quarantined.extend(sent)
            self._try(self._health_check())
            return
        for request in list(self.in_flight.values()):
            if self.trial is not None:
                return  # it died again of one of these: all of them are quarantined now
            self._send(request)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        with suppress(Exception):
            self.engine.cancel(list(self.in_flight))
        self.in_flight.clear()
        self.quarantined.clear()
        self.trial = None
        raise EngineDiedError(f"the engine serves nothing any more ({reason})") from error


def _wants_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in _WANT_OF_MEMORY)

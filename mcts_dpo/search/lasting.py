"""An engine as a search for trees wants it: no tree is given up because the engine died, but the one it died of.

In: an engine. Out: the same requests served, or EngineDiedError. What was under way when the engine died (its `submit`
or `poll` raised, but for want of memory) is sent again. A request that comes back with an error is sent again, once,
when the engine has shown that it lives by serving another; an error that comes twice is the request's own, and so is
one that is final. When it dies again before it has served anything, or a third time under one request, what was under
way is sent one by one, to an engine that has shown that it lives: of which it dies alone, that one fails and tells why.
An engine that shows no life serves nothing any more. Knows neither trees nor journals.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mcts_dpo.engines.base import Completion, Engine, Request

_SIGN_OF_LIFE = -1  # the number of the request that any living engine serves
_DEATHS = 3  # of the engine that a request may have been there at before it is looked at alone
_log = logging.getLogger(__name__)


class EngineDiedError(RuntimeError):
    """The engine serves nothing any more. The message is one line."""


@dataclass(slots=True)
class LastingEngine:
    """See the module. Numbers of requests are ≥ 0.

    under_way: sent and not back. held: back with an error, until the engine has shown that it lives. again: sent for
    the second time. deaths: since anything was served. witnessed: deaths while a request was under way. suspects: to be
    tried one by one; trial: the one that is. fatal: those that the engine died of, alone.
    """

    engine: Engine
    under_way: dict[int, Request] = field(default_factory=dict)
    held: list[tuple[Request, Completion]] = field(default_factory=list)
    again: set[int] = field(default_factory=set)
    deaths: int = 0
    witnessed: Counter[int] = field(default_factory=Counter)
    suspects: deque[Request] = field(default_factory=deque)
    trial: int | None = None
    fatal: list[Completion] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        """As `Engine.submit`. Raises EngineDiedError."""
        if self.trial is not None:
            self.suspects.append(request)
        else:
            self._send(request)

    def _send(self, request: Request) -> None:
        self.under_way[request.id] = request
        try:
            self.engine.submit(request)
        except Exception as error:
            self._revive(error)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """As `Engine.poll`. Raises EngineDiedError."""
        while True:
            try:
                finished = self.engine.poll() if patience is None else self.engine.poll(patience)
            except Exception as error:
                self._revive(error)
                finished = []
                if not self.fatal:
                    continue
            given = self._judged(finished)
            if given or not finished:
                return given

    def cancel(self, ids: Iterable[int]) -> None:
        """As `Engine.cancel`."""
        gone = set(ids)
        self.held = [(request, completion) for request, completion in self.held if request.id not in gone]
        self.suspects = deque(request for request in self.suspects if request.id not in gone)
        self.fatal = [completion for completion in self.fatal if completion.id not in gone]
        for one in gone:
            self.under_way.pop(one, None)
            self.witnessed.pop(one, None)
        self.engine.cancel(gone)
        if self.trial in gone:
            self._next()

    def _judged(self, finished: Sequence[Completion]) -> list[Completion]:
        """What may be passed on of what came back."""
        given, self.fatal = self.fatal, []
        for completion in finished:
            request = self.under_way.pop(completion.id)
            self.witnessed.pop(completion.id, None)
            alive = completion.error is None or completion.final
            if alive:
                self.deaths = 0
            if completion.id == self.trial:
                if completion.id != _SIGN_OF_LIFE:
                    given.append(completion)
                elif not alive:
                    self._give_up(str(completion.error))
                self._next()
            elif completion.id == _SIGN_OF_LIFE:
                given += self._released(completion, alive)
            elif alive:
                given.append(completion)
            else:
                self.held.append((request, completion))
        if self.held and self.trial is None and _SIGN_OF_LIFE not in self.under_way:
            self._send(self._sign_of_life())
        return given

    def _sign_of_life(self) -> Request:
        end = getattr(self.engine.tokenizer, "eos_token_id", None)
        return Request(id=_SIGN_OF_LIFE, prefix=(end or 0,), max_tokens=1)

    def _next(self) -> None:
        """Try the next suspect; where there is none, all is as before."""
        self.trial = None
        if self.suspects:
            self._try(self.suspects.popleft())

    def _try(self, request: Request) -> None:
        self.trial = request.id
        self._send(request)

    def _released(self, sign: Completion, alive: bool) -> list[Completion]:
        """The errors that were held and have come twice, if the engine lives; the other requests are sent again."""
        held, self.held = self.held, []
        if not alive:
            self._give_up(str((held[0][1] if held else sign).error))
        # Sorted out before any is sent: the engine may die of sending, and then they are elsewhere than under way.
        twice = [completion for request, completion in held if request.id in self.again]
        once = [request for request, _ in held if request.id not in self.again]
        self.again.update(request.id for request in once)
        for request in once:
            self.submit(request)
        return twice

    def _revive(self, error: Exception) -> None:
        """After a death: send again what was under way."""
        if isinstance(error, EngineDiedError):
            raise error
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise error  # it would come back; whoever runs the search can say what to change
        said = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}{': ' if said else ''}{said}"
        self.deaths += 1
        with suppress(Exception):  # it may still hold them
            self.engine.cancel(list(self.under_way))
        if self.trial == _SIGN_OF_LIFE:
            self._give_up(reason, error)
        if self.trial is not None:
            del self.under_way[self.trial]
            self.fatal.append(Completion(self.trial, error=f"the engine died of it, twice and more ({reason})"))
            self._try(self._sign_of_life())
            return
        self.witnessed.update(list(self.under_way))
        alone = self.deaths > 1 or any(self.witnessed[one] >= _DEATHS for one in self.under_way)
        how = "one by one" if alone else "again"
        _log.warning("the engine died (%s); what was under way is sent %s", reason, how, exc_info=error)
        sent = [request for one, request in self.under_way.items() if one != _SIGN_OF_LIFE]
        if alone:
            self.under_way.clear()
            self.suspects.extend(sent)
            self._try(self._sign_of_life())
            return
        for request in list(self.under_way.values()):
            if self.trial is not None:
                return  # it died again of one of these: all of them are suspects now
            self._send(request)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        with suppress(Exception):
            self.engine.cancel(list(self.under_way))
        self.under_way.clear()
        self.suspects.clear()
        raise EngineDiedError(f"the engine serves nothing any more ({reason})") from error

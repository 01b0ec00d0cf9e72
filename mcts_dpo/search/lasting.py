"""An engine as a search for trees wants it: no tree is given up because its engine died.

In: an engine. Out: the same requests served, or EngineDiedError. What was under way when the engine died (its `submit`
or `poll` raised, but for want of memory) is sent again. A request that comes back with an error is sent again, once,
when the engine has shown that it lives by serving another; an error that comes twice is the request's own. An engine
that dies twice before it has served anything, or that shows no life, serves nothing any more. Knows neither trees nor
journals.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mcts_dpo.engines.base import Completion, Engine, Request

_SIGN_OF_LIFE = -1  # the number of the request that any living engine serves
_log = logging.getLogger(__name__)


class EngineDiedError(RuntimeError):
    """The engine serves nothing any more. The message is one line."""


@dataclass(slots=True)
class LastingEngine:
    """See the module. Numbers of requests are ≥ 0.

    under_way: sent and not back. held: back with an error, until the engine has shown that it lives. again: sent for
    the second time. deaths: since anything was served.
    """

    engine: Engine
    under_way: dict[int, Request] = field(default_factory=dict)
    held: list[tuple[Request, Completion]] = field(default_factory=list)
    again: set[int] = field(default_factory=set)
    deaths: int = 0

    def submit(self, request: Request) -> None:
        """As `Engine.submit`. Raises EngineDiedError."""
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
                continue
            given = self._judged(finished)
            if given or not finished:
                return given

    def cancel(self, ids: Iterable[int]) -> None:
        """As `Engine.cancel`."""
        gone = set(ids)
        self.held = [(request, completion) for request, completion in self.held if request.id not in gone]
        for one in gone:
            self.under_way.pop(one, None)
        self.engine.cancel(gone)

    def _judged(self, finished: Sequence[Completion]) -> list[Completion]:
        """What may be passed on of what came back."""
        given: list[Completion] = []
        for completion in finished:
            request = self.under_way.pop(completion.id)
            if completion.error is None:
                self.deaths = 0
            if completion.id == _SIGN_OF_LIFE:
                given += self._released(completion)
            elif completion.error is None:
                given.append(completion)
            else:
                self.held.append((request, completion))
        if self.held and _SIGN_OF_LIFE not in self.under_way:
            end = getattr(self.engine.tokenizer, "eos_token_id", None)
            self.submit(Request(id=_SIGN_OF_LIFE, prefix=(end or 0,), max_tokens=1))
        return given

    def _released(self, sign: Completion) -> list[Completion]:
        """The errors that were held and have come twice, if the engine lives; the other requests are sent again."""
        held, self.held = self.held, []
        if sign.error is not None:
            self._give_up(held[0][1].error or sign.error)
        for request, _ in held:
            if request.id not in self.again:
                self.again.add(request.id)
                self.submit(request)
        return [completion for request, completion in held if request.id not in self.under_way]

    def _revive(self, error: Exception) -> None:
        """After a death: send again what was under way."""
        if isinstance(error, EngineDiedError):
            raise error
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise error  # it would come back; whoever runs the search can say what to change
        said = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}{': ' if said else ''}{said}"
        self.deaths += 1
        if self.deaths > 1:
            self._give_up(reason, error)
        _log.warning("the engine died (%s); what was under way is sent again", reason, exc_info=error)
        with suppress(Exception):  # it may still hold them
            self.engine.cancel(list(self.under_way))
        for request in list(self.under_way.values()):
            self.submit(request)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        with suppress(Exception):
            self.engine.cancel(list(self.under_way))
        self.under_way.clear()
        raise EngineDiedError(f"the engine serves nothing any more ({reason})") from error

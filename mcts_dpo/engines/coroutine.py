"""Work that waits for an engine, written as coroutines: they yield what they need and are resumed with the results.

A coroutine yields a sequence of *new* work: `Request`s to the engine, and `Call`s of functions that may take long. It
is resumed with the results that have arrived since: a list of `Returned`, each with the object that was yielded. It may
be resumed while some of its work is still in flight. search/runner.py runs coroutines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from mcts_dpo.engines.base import Completion, Request

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of a function that may take long. Pending calls of one function are made together, in a thread.

    function: items → one result per item, in order. items: of this call; its result is the list of their results.
    starts:   the function only starts the work and returns a `Future` of the results. No thread waits for it, and its
              calls are made one by one.
    """

    function: Callable[[Sequence[Any]], Any]
    items: Sequence[Any]
    starts: bool = False


Work = Request | Call


class Returned(NamedTuple):
    """One result. work: the object that was yielded. result: a `Completion`, or the list of a `Call`'s results."""

    work: Work
    result: Any


Coroutine = Generator[Sequence[Work], list[Returned], ResultT]


class RequestError(RuntimeError):
    """The engine could not serve a request. The message is its reason, one line."""


def gather(work: Sequence[Work]) -> Coroutine[list[Any]]:
    """Wait for all of `work`. Returns the results in its order."""
    results: dict[int, Any] = {}
    new = work
    while len(results) < len(work):
        for returned in (yield new):
            results[id(returned.work)] = returned.result
        new = ()
    return [results[id(one)] for one in work]


def completions(requests: Sequence[Request]) -> Coroutine[list[Completion]]:
    """The completions of `requests`, in order. Raises RequestError with the reason of the first that was refused."""
    found: list[Completion] = yield from gather(requests)
    for completion in found:
        if completion.error is not None:
            raise RequestError(completion.error)
    return found


def call(
    function: Callable[[Sequence[Any]], Any], items: Sequence[Any], *, starts: bool = False
) -> Coroutine[list[Any]]:
    """`function(items)`, called together with pending calls of the same function. [] at once if there are no items.

    starts: see `Call`.
    """
    if not items:
        return []
    (found,) = yield from gather([Call(function, items, starts)])
    return list(found)


@dataclass(slots=True)
class Concurrent(Generic[ResultT]):
    """Several coroutines inside one; none waits for another.

    `start` and `deliver` return new work to yield. `ended` collects the coroutines that have returned, with results.
    """

    owner: dict[int, Coroutine[ResultT]] = field(default_factory=dict)
    running: list[Coroutine[ResultT]] = field(default_factory=list)
    ended: list[tuple[Coroutine[ResultT], ResultT]] = field(default_factory=list)

    def start(self, coroutine: Coroutine[ResultT]) -> list[Work]:
        """Run a coroutine up to its first work. Returns that work."""
        self.running.append(coroutine)
        return self._advance(coroutine, None)

    def deliver(self, returned: Iterable[Returned]) -> list[Work]:
        """Hand results to the coroutines that yielded their work. Returns the new work."""
        by_owner: dict[int, tuple[Coroutine[ResultT], list[Returned]]] = {}
        for one in returned:
            coroutine = self.owner.pop(id(one.work))
            by_owner.setdefault(id(coroutine), (coroutine, []))[1].append(one)
        return [work for coroutine, results in by_owner.values() for work in self._advance(coroutine, results)]

    def _advance(self, coroutine: Coroutine[ResultT], results: list[Returned] | None) -> list[Work]:
        try:
            new = list(next(coroutine) if results is None else coroutine.send(results))
        except StopIteration as stop:
            self.running.remove(coroutine)
            self.ended.append((coroutine, stop.value))
            return []
        self.owner.update((id(work), coroutine) for work in new)
        return new


def side_by_side(coroutines: Sequence[Coroutine[ResultT]]) -> Coroutine[list[ResultT]]:
    """Run all coroutines, none waiting for another. Returns their results in order."""
    together: Concurrent[ResultT] = Concurrent()
    new = [work for coroutine in coroutines for work in together.start(coroutine)]
    while together.running:
        new = together.deliver((yield new))
    results = {id(coroutine): result for coroutine, result in together.ended}
    return [results[id(coroutine)] for coroutine in coroutines]

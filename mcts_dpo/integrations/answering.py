"""Questions that come one by one from many threads, answered together by one engine in a thread of its own.

In: functions that say what is asked, given the engine. Out: futures of solutions. What is asked at any moment runs
together: a question enters the search the moment it comes, and none waits for another. Knows no harness.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from mcts_dpo.engines.base import Engine
from mcts_dpo.solve import Asked, OnlineSolver, Solution

How = Callable[[Engine], Asked]
"""Says what is asked, given the engine (whose tokenizer may decide how a prompt is written)."""

PATIENCE = 0.05
"""Seconds that the engine is waited for before a look at who has come or gone meanwhile."""


def answer(asked: Asked, engine: Engine) -> Solution:
    """Solve one problem on an engine that does nothing else meanwhile. Raises InputError as `OnlineSolver.admit`."""
    solver = OnlineSolver(engine)
    solver.admit(0, asked)
    while solver.busy:
        for _, solution in solver.step():
            return solution
    raise AssertionError("a question that was admitted is answered")


@dataclass(slots=True, eq=False)
class Ticket:
    """A question on its way. `gone`: whoever asked no longer wants to know; its search is given up."""

    how: How
    future: Future[Solution]
    gone: bool = False


class SharedEngine:
    """One engine in a thread of its own; all that is asked of it at any moment is searched together.

    load:     makes the engine; called in the thread, when something is asked for the first time.
    together: the most questions that were in the search at one time.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._arrived: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        self.together = 0
        threading.Thread(target=self._run, name="mcts-dpo-engine", daemon=True).start()

    def ask(self, how: How) -> Ticket:
        """Queue a problem. Its solution, or what went wrong, comes as the ticket's future."""
        ticket = Ticket(how, Future())
        self._arrived.put(ticket)
        return ticket

    def _run(self) -> None:
        engine: Engine | None = None
        while True:
            open_: dict[int, Ticket] = {}
            waiting = [self._arrived.get()]
            try:
                engine = engine or self._load()
                self._answer(engine, waiting, open_)
            except Exception as error:  # the engine's own: whoever waits is told, and the next may fare better
                engine = None
                for ticket in (*waiting, *open_.values()):
                    if not ticket.future.done():
                        ticket.future.set_exception(error)

    def _answer(self, engine: Engine, waiting: list[Ticket], open_: dict[int, Ticket]) -> None:
        """Answer what waits and what comes meanwhile, until nothing is left."""
        solver = OnlineSolver(engine)
        while waiting or open_:
            while waiting:
                self._admit(solver, engine, waiting.pop(), open_)
            self.together = max(self.together, len(open_))
            for key, solution in solver.step(PATIENCE) if open_ else ():
                assert isinstance(key, int)
                open_.pop(key).future.set_result(solution)
            for key, ticket in list(open_.items()):
                if ticket.gone:
                    solver.cancel(key)
                    del open_[key]
            while not self._arrived.empty():
                waiting.append(self._arrived.get())
        solver.close()

    def _admit(self, solver: OnlineSolver, engine: Engine, ticket: Ticket, open_: dict[int, Ticket]) -> None:
        try:
            solver.admit(id(ticket), ticket.how(engine))
        except Exception as error:
            ticket.future.set_exception(error)
        else:
            open_[id(ticket)] = ticket

"""Questions that come one by one, and what a strategy makes of each, with its tree where there is one.

In: a problem, how it is put, a strategy and its budget; an engine. Out: an attempt and the figures of its search. With
`SharedEngine` all that is asked at any moment runs together: a tree enters the search the moment it comes, and none
waits for another. Knows no harness. Reference answers are taken away first.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from mcts_dpo.engines.base import Engine
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search import Forest, SearchSettings, tree_answer
from mcts_dpo.search.events import Loop, run_events, trees_alive
from mcts_dpo.search.simulation import Task, start
from mcts_dpo.search.strategies import Attempt, StrategySettings, plan, solve
from mcts_dpo.search.strategies.tree import tree_settings

Kind = Literal["mcts", "majority"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem and how it is to be solved. budget: generated tokens, ≥ 1."""

    problem: Problem
    strategy: Kind
    budget: int
    prompt: PromptSettings
    search: SearchSettings


@dataclass(frozen=True, slots=True)
class Answered:
    """An attempt; of a tree search also the forest of its one tree, and the weight of the answer in its vote."""

    attempt: Attempt
    forest: Forest | None = None
    weight: float = 0.0

    def figures(self) -> dict[str, Any]:
        """The search in figures: answer, tokens, solutions; of a tree expansions, nodes, V of the root, weight."""
        found: dict[str, Any] = {
            "answer": self.attempt.answer,
            "tokens": self.attempt.tokens,
            "solutions": self.attempt.solutions,
        }
        if self.forest is not None:
            info = self.forest.trees[0]
            found |= {
                "expansions": info.simulations,
                "nodes": len(self.forest),
                "value": float(self.forest.v[info.root]),
                "weight": self.weight,
                "status": info.status,
            }
            if info.notes:
                found["notes"] = list(info.notes)
        return found


def answer(asked: Asked, engine: Engine) -> Answered:
    """Solve one problem on an engine that does nothing else meanwhile."""
    if asked.strategy == "majority":
        return _votes([asked], engine)[0]
    task = _tree(asked, engine)
    run_events([task], engine, task.settings)
    return _from_tree(task)


def _votes(asked: list[Asked], engine: Engine) -> list[Answered]:
    """Majority over several problems at once; all have one budget, prompt and search."""
    if not asked:
        return []
    first = asked[0]
    problems = [one.problem for one in asked]
    found = solve(problems, engine, [("majority", first.budget)], prompt=first.prompt, search=first.search)
    return [Answered(attempt) for attempt in found["majority", first.budget]]


def _tree(asked: Asked, engine: Engine) -> Task:
    """The search of one tree, not begun."""
    given, chosen = asked.search.model_fields_set, asked.search
    dials = StrategySettings(
        children=chosen.children if "children" in given else None,
        depth=chosen.max_depth if "max_depth" in given else None,
        simulations=chosen.simulations if "simulations" in given else None,
    )
    settings = tree_settings(chosen, asked.budget, plan(asked.budget, dials, chosen))
    return start([asked.problem], engine, asked.prompt, settings, "solve")


def _from_tree(task: Task) -> Answered:
    forest = task.forest.by_tree()
    info = forest.trees[0]
    ends = int(sum(forest.samples[node] for node in forest.nodes(0) if forest.answers[node] is not None))
    if info.status == "failed":
        return Answered(Attempt(None, "", info.generated, ends, info.reason), forest)
    found = tree_answer(forest, 0)
    text = task.prompt.prefill + forest.solution_text(found.leaf) if found.leaf >= 0 else ""
    attempt = Attempt(found.answer, text, info.generated, ends, undecided=found.undecided)
    return Answered(attempt, forest, found.weight)


How = Callable[[Engine], Asked]
"""Says what is asked, given the engine (whose tokenizer may decide how a prompt is written)."""

PATIENCE = 0.05
"""Seconds that the engine is waited for before a look at who has come or gone meanwhile."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A question on its way. `gone`: whoever asked no longer wants to know; its search is given up."""

    how: How
    future: Future[Answered]
    gone: bool = False


class SharedEngine:
    """One engine in a thread of its own; all that is asked of it at any moment is searched together.

    load:     makes the engine; called in the thread, when something is asked for the first time.
    together: the most trees that were in the search at one time.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._arrived: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        self.together = 0
        threading.Thread(target=self._run, name="mcts-dpo-engine", daemon=True).start()

    def ask(self, how: How) -> Ticket:
        """Queue a problem. Its answer, or what went wrong, comes as the ticket's future."""
        ticket = Ticket(how, Future())
        self._arrived.put(ticket)
        return ticket

    def _run(self) -> None:
        engine: Engine | None = None
        while True:
            trees: list[tuple[Task, Ticket]] = []
            votes: list[tuple[Asked, Ticket]] = []
            waiting = [self._arrived.get()]
            try:
                engine = engine or self._load()
                self._search(engine, waiting, trees, votes)
                while votes:
                    votes = _vote(engine, votes)
            except Exception as error:  # the engine's own: whoever waits is told, and the next may fare better
                engine = None
                for ticket in (*waiting, *(ticket for _, ticket in (*trees, *votes))):
                    if not ticket.future.done():
                        ticket.future.set_exception(error)

    def _search(
        self,
        engine: Engine,
        waiting: list[Ticket],
        trees: list[tuple[Task, Ticket]],
        votes: list[tuple[Asked, Ticket]],
    ) -> None:
        """Search what waits and what comes meanwhile, until no tree is left; votes are put aside."""
        loop = Loop(engine, trees_alive(engine, SearchSettings()))
        while waiting or trees:
            while waiting:
                ticket = waiting.pop()
                try:
                    asked = ticket.how(engine)
                    if asked.strategy == "majority":
                        votes.append((asked, ticket))
                        continue
                    task = _tree(asked, engine)
                except Exception as error:
                    ticket.future.set_exception(error)
                    continue
                trees.append((task, ticket))
                loop.admit(task)
            self.together = max(self.together, len(trees))
            ended = {id(task) for task in loop.step(PATIENCE)} if trees else set()
            for task, ticket in trees:
                if ticket.gone:
                    loop.cancel(task)
                elif id(task) in ended:
                    ticket.future.set_result(_from_tree(task))
            trees[:] = [(task, ticket) for task, ticket in trees if not ticket.gone and id(task) not in ended]
            while not self._arrived.empty():
                waiting.append(self._arrived.get())
        loop.close()


def _vote(engine: Engine, votes: list[tuple[Asked, Ticket]]) -> list[tuple[Asked, Ticket]]:
    """Answer those votes that can be drawn side by side with the first. Returns the others."""
    first = votes[0][0]
    together: dict[str, tuple[Asked, Ticket]] = {}
    rest = []
    for asked, ticket in votes:
        alike = (asked.budget, asked.prompt, asked.search) == (first.budget, first.prompt, first.search)
        # Two of one id (epochs of two evaluations) would have the same samples: one after the other.
        if ticket.gone:
            continue
        if alike and asked.problem.id not in together:
            together[asked.problem.id] = (asked, ticket)
        else:
            rest.append((asked, ticket))
    for (_, ticket), found in zip(
        together.values(), _votes([asked for asked, _ in together.values()], engine), strict=True
    ):
        ticket.future.set_result(found)
    return rest

"""The deterministic schedule: in every wave all living trees select, and nothing moves on before all are back.

In: a task. Out: its forest, grown. The result depends on the problems' own settings and the policy alone: not on the
order or number of the problems, nor on which request the engine finishes first. So a journal is replayed by searching
again: what it holds is not asked for a second time, and the forest comes out row by row the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.search.desk import Desk, SearchClock
from mcts_dpo.search.ending import end_if_done
from mcts_dpo.search.journal import Settled
from mcts_dpo.search.replay import require_sampled, require_settled
from mcts_dpo.search.simulation import Expansion, Task, ask, grow, judge, plan, room_for, select, settle


def run_waves(task: Task, clock: SearchClock | None, told: Callable[[Task], None]) -> None:
    """Search every tree of a task to its end, all of them in step. told: after every wave.

    Raises MisfitError where the task's journal tells of another search; the forest is of no use then.
    """
    desk: Desk[int] = Desk(task.engine, clock)
    while _wave(task, desk):
        told(task)
    told(task)
    desk.close()


def _wave(task: Task, desk: Desk[int]) -> bool:
    """Select, expand, judge and back up once in every living tree. False if there was none."""
    living = [tree for tree in task.trees if tree.living]
    if not living:
        return False
    wanted = [min(task.settings.parallel_leaves, room_for(task, tree)) for tree in living]
    leaves = select(task, living, wanted)
    planned = [plan(task, tree, leaf) for tree, row in zip(living, leaves, strict=True) for leaf in row]
    growths = [
        grow(task, expansion, completion.samples, completion.error)
        for (expansion, _), completion in zip(planned, _sample(task, desk, planned), strict=True)
    ]
    known = task.journal.record.settled if task.journal else {}
    earlier = [known.get((growth.tree, growth.index)) for growth in growths]
    questions = [ask(task, growth) for growth in growths]
    for growth, asked, old in zip(growths, questions, earlier, strict=True):
        if old is not None:
            require_settled(task, growth, len(asked), old)
    outcomes = [
        judge(task, growth, old.outcomes if old else None) for growth, old in zip(growths, earlier, strict=True)
    ]
    answers: list[list[Completion]] = [old.answers if old else [] for old in earlier]
    # A growth's answers are written down together, as soon as the last of them is back.
    parts = [0 if old else len(asked) for old, asked in zip(earlier, questions, strict=True)]
    owner = [place for place, count in enumerate(parts) for _ in range(count)]
    back: list[dict[int, Completion]] = [{} for _ in growths]
    first = [owner.index(place) if count else 0 for place, count in enumerate(parts)]

    def settled(place: int) -> None:
        if task.journal:
            growth = growths[place]
            task.journal.settled([Settled(growth.tree, growth.index, outcomes[place], answers[place])])

    def answered(index: int, completion: Completion) -> None:
        place = owner[index]
        back[place][index - first[place]] = completion
        if len(back[place]) == parts[place]:
            answers[place] = [back[place][turn] for turn in range(parts[place])]
            settled(place)

    for place, old in enumerate(earlier):
        if old is None and not questions[place]:
            settled(place)
    pending = [request for count, asked in zip(parts, questions, strict=True) if count for _, request in asked]
    _exchange(desk, pending, answered)
    by_node = {
        node: answer
        for asked, given in zip(questions, answers, strict=True)
        for (node, _), answer in zip(asked, given, strict=True)
    }
    settle(task, growths, by_node)
    for tree in living:
        end_if_done(task, tree)
    return True


def _sample(task: Task, desk: Desk[int], planned: Sequence[tuple[Expansion, Request]]) -> list[Completion]:
    """The samples of all planned expansions, from the journal or from the engine."""
    journal = task.journal
    known = journal.record.sampled if journal else {}
    found: list[Completion | None] = []
    for expansion, _ in planned:
        old = known.get((expansion.tree, expansion.index))
        if old is not None:
            require_sampled(expansion, old)
        found.append(None if old is None else Completion(-1, old.samples, error=old.error))
    missing = [place for place, completion in enumerate(found) if completion is None]

    def arrived(index: int, completion: Completion) -> None:
        expansion = planned[missing[index]][0]
        found[missing[index]] = completion
        if journal:
            journal.sampled(expansion.tree, expansion.leaf, expansion.index, expansion.seed, completion)

    _exchange(desk, [planned[place][1] for place in missing], arrived)
    return [completion for completion in found if completion is not None]


def _exchange(desk: Desk[int], requests: Sequence[Request], arrived: Callable[[int, Completion], None]) -> None:
    """Send all and wait for all; `arrived` is told the place of each request and its completion, as they come."""
    for place, request in enumerate(requests):
        desk.send(request, place)
    missing = len(requests)
    while missing:
        for place, completion in desk.collect():
            arrived(place, completion)
            missing -= 1

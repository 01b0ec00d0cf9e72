"""Event-driven search: each tree moves the moment its own completion is back, and no tree waits for another.

In: tasks (`simulation.start`), one after the other, and an engine. Out: their forests, grown. One `Loop`: admit, select
in all trees that can move (one kernel call per task), submit, poll, grow, ask, settle (one kernel call per task); a
task can be admitted at any time, and cancelled. `run_events` is the search of given tasks in such a loop. So
many trees are alive that the engine's queue never runs dry; when too few are left, each may have several leaves out
under virtual loss (`parallel_leaves`). With one leaf at a time a tree's samples depend on the problem, the settings
and the policy alone, so the trees are those of the waves, whatever the engine finishes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mcts_dpo.engines.base import Completion, Engine, Request, Sample
from mcts_dpo.search import kernels
from mcts_dpo.search.desk import Desk, SearchClock
from mcts_dpo.search.ending import end_if_done
from mcts_dpo.search.journal import MisfitError, Record, Sampled, Settled
from mcts_dpo.search.lasting import EngineDiedError
from mcts_dpo.search.replay import outcomes_fit, require_settled, take_up
from mcts_dpo.search.rewards import Outcome
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.simulation import (
    Expansion,
    Growth,
    Task,
    Tree,
    ask,
    end,
    fail,
    grow,
    judge,
    plan,
    room_for,
    select,
    settle,
)

SLOTS = 32
"""Sequences that an engine is taken to run together if it does not say."""


@dataclass(slots=True, eq=False)
class Asked:
    """A growth whose self-evaluations are out: how many are missing, and those that are back."""

    growth: Growth
    outcomes: list[Outcome]
    missing: int
    answers: dict[int, Completion] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Running:
    """A task in the loop. waiting: trees not yet admitted. alive: admitted, searched or with something under way.
    moved: those of them that may have room for another leaf. settled: growths ready for `settle`. share: see `Desk`."""

    task: Task
    waiting: deque[Tree]
    alive: dict[int, Tree] = field(default_factory=dict)
    moved: list[Tree] = field(default_factory=list)
    ready: list[Asked] = field(default_factory=list)
    share: Hashable = None


Owner = tuple[Running, Expansion | Asked, int]
"""Who asked: the task; the samples' expansion, or the growth that is judged and the node of this question."""


def trees_alive(engine: Engine, settings: SearchSettings) -> int:
    """How many trees are searched at a time: the setting, or twice as many as the engine runs sequences, so that its
    queue holds work while other trees wait for their last sample."""
    return settings.alive or 2 * int(getattr(getattr(engine, "settings", None), "slots", SLOTS))


def run_events(
    tasks: Iterable[Task],
    engine: Engine,
    settings: SearchSettings,
    clock: SearchClock | None = None,
    *,
    done: Callable[[Task], None] = lambda _: None,
    told: Callable[[Task], None] = lambda _: None,
) -> None:
    """Search every tree of every task to its end. The next task is opened (drawn from `tasks`) when fewer trees than
    `trees_alive` are under way: so memory holds the forests that are being searched and no others.

    Raises EngineDiedError (see lasting.py).

    done: called with each task as soon as its last tree has ended. told: after every poll, with each open task.
    """
    loop = Loop(engine, trees_alive(engine, settings), clock, interactive=False)
    source = iter(tasks)
    while True:
        while loop.has_room and (task := next(source, None)) is not None:
            loop.admit(task)
        if not loop.tasks:
            break
        ended = loop.step()
        if not ended and loop.is_stuck:
            raise RuntimeError("the search has trees that are not done, and nothing under way for them")
        for task in (*ended, *loop.tasks):
            told(task)
        for task in ended:
            done(task)
    loop.close()


class Loop:
    """The search of many tasks over one engine, a step at a time: tasks come in whenever somebody wants, and each can
    be taken out again.

    alive: trees searched at a time; those of further tasks wait, first come, first served. interactive: what the death
    of the engine means, see `Desk`; a task whose search raises then fails alone, otherwise the step raises. room: see
    `Desk`.
    """

    def __init__(
        self,
        engine: Engine,
        alive: int,
        clock: SearchClock | None = None,
        *,
        interactive: bool = True,
        room: int | None = None,
    ) -> None:
        self._desk: Desk[Owner] = Desk(engine, clock, interactive=interactive, room=room)
        self._alive = alive
        self._interactive = interactive
        self._running: list[Running] = []

    @property
    def tasks(self) -> list[Task]:
        """Those that were admitted and have neither ended nor been cancelled."""
        return [one.task for one in self._running]

    @property
    def has_room(self) -> bool:
        """Whether a further task's first tree would be searched at once."""
        return sum(len(one.alive) + len(one.waiting) for one in self._running) < self._alive

    @property
    def is_stuck(self) -> bool:
        """Whether trees are alive, and neither is anything of theirs under way nor will a further step begin any."""
        room = sum(len(one.alive) for one in self._running) < self._alive
        begins = any(one.moved or one.ready or (room and one.waiting) for one in self._running)
        return not self._desk.waiting and not begins

    def admit(self, task: Task, share: Hashable = None) -> None:
        """Take a task up, where its journal left it if it has one. share: see `Desk`."""
        self._running.append(_open(task, self._desk, share))

    def step(self, patience: float | None = None) -> list[Task]:
        """Let waiting trees in, select, submit, wait for the engine, grow, ask and back up, once each.

        Returns the tasks whose last tree has ended. Waits for at least one completion (if anything is under way), but
        no longer than `patience` seconds and a step of the engine's (None: as long as it takes).
        """
        crowd = self._let_in()
        failed: list[Running] = []
        for one in list(self._running):
            if one.moved or one.task.settings.parallel_leaves > 1:
                self._attempt(one, failed, partial(_send, one, self._desk, crowd, self._alive))
        if self._desk.waiting:
            for (one, what, node), completion in self._desk.collect(patience):
                if one not in failed:
                    self._attempt(one, failed, partial(_receive, one, what, node, completion, self._desk))
            for one in list(self._running):
                if one.ready:
                    self._attempt(one, failed, partial(_settle, one))
        ended = [one for one in self._running if not one.alive and not one.waiting]
        self._running = [one for one in self._running if one.alive or one.waiting]
        return [one.task for one in (*failed, *ended)]

    def _attempt(self, one: Running, failed: list[Running], act: Callable[[], None]) -> None:
        """Do one thing for a task. If it raises and somebody waits for the others, the task alone fails."""
        try:
            act()
        except EngineDiedError:
            raise
        except Exception as error:
            if not self._interactive:
                raise
            self._running.remove(one)
            failed.append(one)
            self._desk.cancel(lambda owner: owner[0] is one)
            for tree in one.task.trees:
                fail(one.task, tree, f"the search failed ({type(error).__name__}: {error})")

    def cancel(self, task: Task) -> None:
        """Take a task out. What it has under way is given up, in the engine too; its forest stays, sound.

        Its trees that were not done end as "cancelled"; what was sampled and not yet judged counts without judgement.
        Its journal, if it has one, stays as it is: from it the task can be taken up again. A task that is not in the
        loop (it has ended) is left alone.
        """
        one = next((one for one in self._running if one.task is task), None)
        if one is None:
            return
        self._running.remove(one)
        dropped = self._desk.cancel(lambda owner: owner[0] is one)
        one.ready += dict.fromkeys(what for _, what, _ in dropped if isinstance(what, Asked))
        if one.ready:
            _settle(one, write=False)
        for _, what, leaf in dropped:
            if isinstance(what, Expansion):
                kernels.release(task.forest, np.array([leaf], np.int64), expanded=False)
                task.trees[what.tree].flying -= 1
                task.trees[what.tree].promised -= what.promised
        for tree in task.trees:
            if tree.living:
                end(task, tree, "cancelled")

    def close(self) -> None:
        """Count the time up to now."""
        self._desk.close()

    def _let_in(self) -> int:
        """Let waiting trees in as far as there is room. Returns how many are alive."""
        crowd = sum(len(one.alive) for one in self._running)
        for one in self._running:
            while one.waiting and crowd < self._alive:
                tree = one.waiting.popleft()
                one.alive[tree.index] = tree
                one.moved.append(tree)
                crowd += 1
        return crowd


def _open(task: Task, desk: Desk[Owner], share: Hashable = None) -> Running:
    """Take up a task where its journal left it: every simulation in it is done again in the same order, without the
    engine; those that had their samples but not all answers are asked about now. What does not fit is set aside."""
    one = Running(task, deque(), share=share)
    under_way: UnderWay = {}
    record = task.journal.record if task.journal else Record()
    try:
        for entry in record.entries:
            if isinstance(entry, Sampled):
                old = record.settled.get((entry.tree, entry.index))
                under_way[entry.tree, entry.index] = _grow(task, take_up(task, entry), entry.samples, entry.error, old)
            else:
                _settle_again(one, entry, under_way)
    except MisfitError as error:
        assert task.journal is not None
        task.journal.set_aside_from(error.entry, str(error))
    for asked, questions in under_way.values():
        _ask(one, asked, questions, desk)
    for tree in task.trees:
        begun = {index for owner, index in record.sampled if owner == tree.index}
        tree.lost = sorted(set(range(max(begun, default=0))) - begun)
    if one.ready:
        _settle(one)
    for tree in task.trees:
        if tree.flying:
            one.alive[tree.index] = tree
        elif tree.living:
            one.waiting.append(tree)
    one.moved = list(one.alive.values())
    return one


UnderWay = dict[tuple[int, int], tuple[Asked, list[tuple[int, Request]]]]
"""By tree and simulation: growths that are not yet backed up, with their questions."""


def _settle_again(one: Running, entry: list[Settled], under_way: UnderWay) -> None:
    """Back up what was backed up together. Where it cannot have been: MisfitError, before anything is changed."""
    for settled in entry:
        if (settled.tree, settled.index) not in under_way:
            raise MisfitError(entry, f"simulation {settled.index} of tree {settled.tree} is not under way")
        asked, questions = under_way[settled.tree, settled.index]
        require_settled(one.task, asked.growth, len(questions), settled)
    for settled in entry:
        asked, questions = under_way.pop((settled.tree, settled.index))
        asked.answers = {node: answer for (node, _), answer in zip(questions, settled.answers, strict=True)}
        one.ready.append(asked)
    _settle(one, write=False)


def _send(one: Running, desk: Desk[Owner], crowd: int, alive: int) -> None:
    """Select in all trees that have room for another leaf, and submit."""
    task, settings = one.task, one.task.settings
    share = min(settings.parallel_leaves, -(-alive // crowd)) if crowd else 1
    moved = list(one.alive.values()) if share > 1 else one.moved
    one.moved = []
    able = [tree for tree in dict.fromkeys(moved) if tree.living and tree.flying < share]
    if not able:
        return
    wanted = [min(share - tree.flying, room_for(task, tree)) for tree in able]
    for tree, row in zip(able, select(task, able, wanted), strict=True):
        for leaf in row:
            expansion, request = plan(task, tree, leaf)
            desk.send(request, (one, expansion, leaf), one.share)


def _receive(one: Running, what: Expansion | Asked, node: int, completion: Completion, desk: Desk[Owner]) -> None:
    """A completion is back: new nodes and their questions, or an answer to one of these."""
    task = one.task
    if isinstance(what, Asked):
        what.answers[node] = completion
        what.missing -= 1
        if not what.missing:
            one.ready.append(what)
        return
    if task.journal:
        task.journal.sampled(what.tree, what.leaf, what.index, what.seed, completion)
    _ask(one, *_grow(task, what, completion.samples, completion.error), desk)


def _grow(
    task: Task, expansion: Expansion, samples: Sequence[Sample], error: str | None, old: Settled | None = None
) -> tuple[Asked, list[tuple[int, Request]]]:
    growth = grow(task, expansion, samples, error)
    outcomes = judge(task, growth, old.outcomes if old and outcomes_fit(task, growth, old) else None)
    questions = ask(task, growth)
    return Asked(growth, outcomes, len(questions)), questions


def _ask(one: Running, asked: Asked, questions: Sequence[tuple[int, Request]], desk: Desk[Owner]) -> None:
    for judged, request in questions:
        desk.send(request, (one, asked, judged), one.share)
    if not questions:
        one.ready.append(asked)


def _settle(one: Running, write: bool = True) -> None:
    """Back up what is ready. write: note it in the journal first."""
    task = one.task
    if task.journal and write:
        task.journal.settled(
            [
                Settled(
                    asked.growth.tree,
                    asked.growth.index,
                    asked.outcomes,
                    [asked.answers[n] for n in sorted(asked.answers)],
                )
                for asked in one.ready
            ]
        )
    answers = {node: answer for asked in one.ready for node, answer in asked.answers.items()}
    settle(task, [asked.growth for asked in one.ready], answers)
    for index in {asked.growth.tree for asked in one.ready}:
        tree = task.trees[index]
        end_if_done(task, tree)
        if tree.living:
            one.moved.append(tree)
        elif not tree.flying:
            one.alive.pop(index, None)
    one.ready = []

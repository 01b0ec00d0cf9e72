"""The loop of the event-driven search as a server uses it: tasks come in at any time, and some are taken out again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.engines.base import Request
from mcts_dpo.search import SearchSettings
from mcts_dpo.search.events import Loop, run_events
from mcts_dpo.search.invariants import violations
from mcts_dpo.search.journal import Journal, identity
from mcts_dpo.search.simulation import Task, start
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROMPT, every_rule
from tests.search.test_events import JUDGED, MANY, ShuffledEngine, events


@hypothesis_settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    every_rule,
    st.integers(0, 1000),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(["train", "solve"]),
)
def test_whatever_is_cancelled_the_rest_is_searched_as_if_it_had_been_alone(
    settings: SearchSettings, seed: int, alive: int, leaves: int, mode: str
) -> None:
    settings = settings.model_copy(update={"parallel_leaves": leaves})
    if mode == "solve":
        settings = settings.model_copy(
            update={"faithful": settings.faithful.model_copy(update={"reference_child": False})}
        )
    chance = random.Random(seed)
    engine = ShuffledEngine(seed, 6)
    loop = Loop(engine, alive)

    def begin(index: int) -> Task:
        return start(MANY[index : index + 2], engine, PROMPT, settings, mode)

    waiting = list(range(0, len(MANY), 2)) * 2
    ended: list[Task] = []
    cancelled: list[Task] = []
    admitted: list[tuple[int, Task]] = []
    while waiting or loop.tasks:
        if waiting and (not loop.tasks or chance.random() < 0.3):
            admitted.append((waiting[0], begin(waiting.pop(0))))
            loop.admit(admitted[-1][1])
        if loop.tasks and chance.random() < 0.1:
            cancelled.append(chance.choice(loop.tasks))
            loop.cancel(cancelled[-1])
            loop.cancel(cancelled[-1])  # a second time changes nothing
        ended += loop.step()
    loop.close()
    assert engine.occupancy().requests == 0
    assert len(ended) + len(cancelled) == len(admitted) == len(MANY)
    for task in cancelled:
        # What ends in the middle has had fewer visits than a whole search, but every value is what it should be.
        assert violations(task.forest, settings) == []
        assert not any(tree.living or tree.flying or tree.promised for tree in task.trees)
    for index, task in admitted:
        if task in ended and leaves == 1:
            alone = begin(index)
            run_events([alone], engine, settings)
            assert task.forest.by_tree() == alone.forest.by_tree()


def test_what_is_cancelled_leaves_the_engine_at_once() -> None:
    engine = ShuffledEngine(1)
    loop = Loop(engine, 100)
    first, second = (start(MANY[:4], engine, PROMPT, JUDGED, "train") for _ in range(2))
    loop.admit(first)
    loop.admit(second)
    loop.step()
    both = engine.occupancy().requests
    loop.cancel(first)
    assert 0 < engine.occupancy().requests < both
    assert {tree.info.status for tree in first.trees} == {"cancelled"}
    loop.cancel(second)
    assert engine.occupancy().requests == 0
    assert loop.tasks == []
    assert loop.step() == []


def test_tasks_beyond_what_may_be_alive_wait_and_can_be_cancelled_there() -> None:
    engine = ShuffledEngine(1)
    loop = Loop(engine, 2)
    tasks = [start(MANY[:2], engine, PROMPT, JUDGED, "train") for _ in range(3)]
    assert loop.has_room
    for task in tasks:
        loop.admit(task)
    assert not loop.has_room
    loop.step()
    assert {tree.info.simulations + tree.flying for task in tasks[1:] for tree in task.trees} == {0}
    loop.cancel(tasks[1])
    ended: list[Task] = []
    while loop.tasks:
        ended += loop.step()
    assert [task is tasks[0] or task is tasks[2] for task in ended] == [True, True]
    assert {tree.info.status for tree in tasks[1].trees} == {"cancelled"}


def test_a_cancelled_task_goes_on_from_its_journal(tmp_path: Path) -> None:
    settings = events(JUDGED, alive=9)
    engine = ShuffledEngine(5)

    def begin() -> Task:
        task = start(MANY, engine, PROMPT, settings, "train")
        task.journal = Journal(tmp_path / "journal", identity(task.settings, PROMPT, MANY, "train", ""))
        return task

    task, loop = begin(), Loop(engine, 9)
    loop.admit(task)
    for _ in range(20):
        loop.step()
    loop.cancel(task)
    assert task.journal is not None
    task.journal.close()
    again, whole = begin(), start(MANY, engine, PROMPT, settings, "train")
    asked = len(engine.requests)
    run_events([again], engine, settings)
    some = len(engine.requests) - asked
    assert again.journal is not None
    again.journal.close()
    run_events([whole], engine, settings)
    assert again.forest.by_tree() == whole.forest.by_tree()
    assert some < len(engine.requests) - asked - some


def test_patience_is_no_loss_but_an_engine_that_loses_is_an_error() -> None:
    class Slow(AutomatonEngine):
        """Has nothing for the first few polls."""

        polls = 0

        def poll(self, patience: float | None = None) -> list:
            self.polls += 1
            return super().poll() if self.polls > 3 else []

    class Forgetful(AutomatonEngine):
        def submit(self, request: Request) -> None:
            pass

    loop = Loop(Slow(6), 9)
    loop.admit(start(MANY[:1], Slow(6), PROMPT, JUDGED, "train"))
    assert loop.step(patience=0.0) == []
    while loop.tasks:
        loop.step(patience=0.0)
    forgetful = Loop(Forgetful(6), 9)
    forgetful.admit(start(MANY[:1], Slow(6), PROMPT, JUDGED, "train"))
    with pytest.raises(RuntimeError, match="the engine lost"):
        forgetful.step(patience=60.0)

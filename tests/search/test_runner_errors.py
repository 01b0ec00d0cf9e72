"""A coroutine or a call that raises: it ends alone, nothing of it is left, and the others are not affected."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.coroutine import Call, Coroutine, RequestError, Returned, Work, call, completions, side_by_side
from mcts_dpo.search.runner import CALL_THREADS, Runner, Schedule
from tests.reference.engine import AutomatonEngine
from tests.search.test_runner import ShuffledEngine


def halves(items: Sequence[int]) -> list[int]:
    """Half of each item. Raises for all items if one is odd."""
    for item in items:
        if item % 2:
            raise ValueError(f"{item} is odd")
    return [item // 2 for item in items]


def calling(item: int) -> Coroutine[int]:
    """One completion, then a call."""
    yield from completions([Request(id=-1, prefix=(3, 4), max_tokens=4, seed=item)])
    found: list[int] = yield from call(halves, [item])
    return found[0]


def results_of(runner: Runner[int]) -> dict[object, object]:
    found: dict[object, object] = {}
    while runner.busy:
        found.update({one.key: one.results[0] for one in runner.step(60.0)})
    return found


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_call_that_raises_ends_the_coroutine_that_made_it_and_no_other(schedule: Schedule) -> None:
    """Pending calls of one function are made together, so that all would share the exception of one."""
    engine = AutomatonEngine(6)
    runner: Runner[int] = Runner(engine, schedule, contain=True)
    for item in range(8):
        runner.admit(item, [calling(item)])
    found = results_of(runner)
    runner.close()
    assert [found[item] for item in range(0, 8, 2)] == [0, 1, 2, 3]
    for item in range(1, 8, 2):
        assert isinstance(found[item], RequestError)
        assert str(found[item]) == f"the search failed (ValueError: {item} is odd)"


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_call_that_raises_ends_the_run_without_contain(schedule: Schedule) -> None:
    runner: Runner[int] = Runner(AutomatonEngine(6), schedule)
    runner.admit(0, [calling(1)])
    with pytest.raises(ValueError, match="1 is odd"):
        results_of(runner)
    runner.close()


def test_a_call_that_raises_after_its_coroutine_was_cancelled_changes_nothing() -> None:
    go = threading.Event()

    def late(items: Sequence[int]) -> list[int]:
        assert go.wait(600.0)
        raise ValueError("too late")

    def waits() -> Coroutine[int]:
        found: list[int] = yield from call(late, [1])
        return found[0]

    runner: Runner[int] = Runner(AutomatonEngine(6), contain=True)
    runner.admit("gone", [waits()])
    runner.step(0.0)
    runner.cancel("gone")
    go.set()
    runner.admit("stays", [calling(4)])
    assert results_of(runner) == {"stays": 2}
    runner.close()


def test_a_slow_function_takes_no_threads_of_the_others_and_gathers_what_comes_meanwhile() -> None:
    go, sizes = threading.Event(), []

    def slow(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        assert go.wait(600.0)
        return items

    def asks(item: int) -> Coroutine[int]:
        found: list[int] = yield from call(slow, [item])
        return found[0]

    runner: Runner[int] = Runner(AutomatonEngine(6), alive=100)
    for item in range(10):
        runner.admit(item, [asks(item)])
        runner.step(0.0)
    runner.admit("quick", [calling(4)])
    ended: list[object] = []
    while not ended:
        ended += [one.key for one in runner.step(60.0)]
    assert ended == ["quick"]
    go.set()
    assert results_of(runner) == {item: item for item in range(10)}
    assert sizes == [1] * CALL_THREADS + [10 - CALL_THREADS]
    runner.close()


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_work_that_is_only_started_comes_back_one_by_one_and_fails_alone(schedule: Schedule) -> None:
    sizes = []

    def start(items: Sequence[int]) -> Future[list[int]]:
        sizes.append(len(items))
        if items[0] == 1:
            raise ValueError("not even started")
        future: Future[list[int]] = Future()
        if items[0] == 2:
            threading.Timer(0.05, future.set_exception, [ValueError("failed later")]).start()
        else:
            results = [item * 10 for item in items[: 1 if items[0] == 3 else None]]
            threading.Timer(0.05, future.set_result, [results]).start()
        return future

    def asks(item: int) -> Coroutine[int]:
        found: list[int] = yield from call(start, [item, 7], starts=True)
        return found[0] + found[1]

    runner: Runner[int] = Runner(AutomatonEngine(6), schedule, contain=True)
    for item in range(5):
        runner.admit(item, [asks(item)])
    found = results_of(runner)
    runner.close()
    assert sizes == [2] * 5
    assert [found[0], found[4]] == [70, 110]
    reasons = ["ValueError: not even started", "ValueError: failed later", "RuntimeError: 1 results for 2 items"]
    assert [str(found[item]) for item in (1, 2, 3)] == [f"the search failed ({reason})" for reason in reasons]


def gives_up(first: Sequence[Work]) -> Coroutine[int]:
    """Raises as soon as one of several results is back."""
    returned: list[Returned] = yield first
    raise KeyError(f"{len(returned)} of {len(first)}")


def test_a_coroutine_that_raises_with_work_out_leaves_nothing_and_harms_none() -> None:
    """Whether its other results come in the same poll, in a later one or from a thread."""
    for order in range(20):
        engine = ShuffledEngine(order)
        runner: Runner[int] = Runner(engine, contain=True)
        requests = [Request(id=-1, prefix=(3, 4), max_tokens=4, seed=seed) for seed in range(6)]
        runner.admit("raises", [gives_up([*requests, Call(halves, [2])])])
        runner.admit("lives", [calling(4)])
        found = results_of(runner)
        assert found["lives"] == 2
        assert str(found["raises"]) == "the search failed (KeyError: '1 of 7')"
        assert engine.occupancy().requests == 0
        runner.close()


def test_a_coroutine_that_raises_as_it_is_cancelled_harms_none() -> None:
    def stubborn() -> Coroutine[int]:
        try:
            yield from completions([Request(id=-1, prefix=(3, 4), max_tokens=4)])
        finally:
            raise ValueError("will not close")

    runner: Runner[int] = Runner(AutomatonEngine(6), contain=True)
    runner.admit("stubborn", [stubborn()])
    runner.admit("lives", [calling(4)])
    runner.cancel("stubborn")  # not begun: nothing to close
    runner.admit("stubborn", [stubborn()])
    runner._start()
    runner.cancel("stubborn")
    assert results_of(runner) == {"lives": 2}
    runner.close()


class Storm(ShuffledEngine):
    """Crashes at random, answers with errors at random, and always crashes on requests with seed 13."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._chance = random.Random(seed)

    def submit(self, request: Request) -> None:
        if request.seed == 13 and self._chance.random() < 0.5:
            raise KeyError("at the door")
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        if any(request.seed == 13 for request in self._waiting):
            self._waiting.clear()
            self._under_way.clear()
            raise MemoryError("of one request")
        done = super().poll(patience)
        return [
            Completion(one.id, error="not now") if one.id >= 0 and self._chance.random() < 0.1 else one for one in done
        ]


def stormy(chance: random.Random, depth: int) -> Coroutine[int]:
    """Yields requests and calls, some together; some raise. May raise an error itself, also when it is closed."""
    try:
        for _ in range(chance.randint(0, 3)):
            seeds = [chance.choice([1, 2, 3, 13 if chance.random() < 0.2 else 4]) for _ in range(chance.randint(1, 3))]
            work: list[Work] = [Request(id=-1, prefix=(3, 4), max_tokens=3, seed=seed) for seed in seeds]
            work += [Call(halves, [chance.choice([2, 4, 3])]) for _ in range(chance.randint(0, 2))]
            out = len(work)
            returned = yield work
            while (out := out - len(returned)) > 0:
                if chance.random() < 0.1:
                    raise ZeroDivisionError("in the middle")
                returned = yield []
            if depth and chance.random() < 0.3:
                yield from side_by_side([stormy(chance, depth - 1) for _ in range(3)])
    finally:
        if depth and chance.random() < 0.05:
            raise LookupError("at the end")
    return 1


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.sampled_from(["synchronous", "asynchronous"]), st.integers(1, 6), st.booleans())
@example(208550, "synchronous", 2, False)
@example(608867, "synchronous", 4, False)
@example(34763, "asynchronous", 1, True)
def test_whatever_raises_every_group_ends_once_and_nothing_is_left(
    seed: int, schedule: Schedule, alive: int, shared: bool
) -> None:
    chance, engine = random.Random(seed), Storm(seed)
    runner: Runner[int] = Runner(engine, schedule, alive=alive, contain=True, room=3 if shared else None)
    ended: list[int] = []
    gone: list[int] = []
    admitted = 0
    while admitted < 12 or runner.busy:
        if admitted < 12 and (not runner.busy or chance.random() < 0.4):
            count = chance.randint(1, 3)
            runner.admit(
                admitted, [stormy(random.Random(seed + admitted), 1) for _ in range(count)], share=admitted % 3
            )
            admitted += 1
        if chance.random() < 0.1:
            key = chance.randrange(admitted)
            if key not in (*ended, *gone):
                runner.cancel(key)
                gone.append(key)
        for one in runner.step(60.0):
            assert isinstance(one.key, int)
            assert all(result == 1 or isinstance(result, RequestError) for result in one.results)
            ended.append(one.key)
    runner.close()
    assert sorted([*ended, *gone]) == list(range(12))
    assert engine.occupancy().requests == 0
    assert (runner._crowd, runner._requests, runner._unsent) == (0, {}, [])
    assert runner._shares is None or (runner._shares._inside, runner._shares._waiting, runner._shares._taken) == (
        {},
        {},
        0,
    )
    assert not any([runner._engine.in_flight, runner._engine.held, runner._engine.quarantined, runner._engine.retried])

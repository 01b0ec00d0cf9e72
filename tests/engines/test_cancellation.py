"""Requests that are taken back: nothing of them stays in the engine, and the others never notice."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.driving import complete
from mcts_dpo.engines import Completion, Occupancy, Request
from mcts_dpo.engines.transformers.engine import TransformersEngine
from tests.engines.tiny import save_model
from tests.engines.transformers.test_engine import engine_for, random_requests


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def tight(model: Path) -> TransformersEngine:
    """So little memory that requests wait for it."""
    return engine_for(model, memory=1e-9, context=80, slots=6)


def drawn(completions: list[Completion]) -> list[list[tuple[int, ...]]]:
    return [[sample.tokens for sample in completion.samples] for completion in completions]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10_000))
def test_any_requests_at_any_time(tight: TransformersEngine, seed: int) -> None:
    chance = random.Random(seed)
    engine = tight
    requests = random_requests(14, seed=seed, max_tokens=1 + seed % 20)
    scores = [Request(id=100 + i, prefix=r.prefix, choices=((3,), (4, 5))) for i, r in enumerate(requests[::3])]
    waiting = chance.sample(requests + scores, len(requests) + len(scores))
    given_up: set[int] = set()
    done: dict[int, Completion] = {}
    while waiting or engine.occupancy().requests:
        for request in waiting[: chance.randint(1, 5)]:
            engine.submit(request)
            waiting.remove(request)
        if chance.random() < 0.4:
            now = set(chance.sample([r.id for r in requests + scores], 3))  # some of them unknown, or done already
            engine.cancel(now)
            given_up |= now - {r.id for r in waiting} - done.keys()
        for completion in engine.poll(0.0):
            assert completion.id not in given_up
            assert completion.id not in done
            done[completion.id] = completion
    assert engine.occupancy() == Occupancy(0, 0, 0, 0)
    assert done.keys() | given_up == {r.id for r in requests + scores}
    kept = [request for request in requests if request.id in done]
    assert drawn([done[request.id] for request in kept]) == drawn(complete(engine, kept))


def test_a_cancelled_request_frees_its_slots_and_its_id(model: Path) -> None:
    engine = engine_for(model)
    long = Request(id=1, prefix=(4, 5, 6), n=20, max_tokens=100, seed=1)
    engine.submit(long)
    assert engine.poll(0.0) == []
    assert engine.occupancy().sequences == 8
    assert engine.occupancy().tokens > 0
    assert engine.occupancy().pins > 0
    engine.cancel([1, 2, 3])
    assert engine.occupancy() == Occupancy(0)
    assert engine.poll() == []
    engine.submit(Request(id=1, prefix=(4, 5, 6), max_tokens=3, seed=2))
    assert [completion.id for completion in engine.poll()] == [1]
    engine.reset()  # nothing is in flight


def test_what_was_done_and_not_yet_polled_is_dropped(model: Path) -> None:
    engine = engine_for(model)
    engine.submit(Request(id=1, prefix=()))  # refused, which is known at once
    engine.submit(Request(id=2, prefix=(4,), max_tokens=1))
    engine.cancel([1])
    assert [completion.id for completion in engine.poll()] == [2]


def test_patience_ends_a_poll_between_two_steps(model: Path) -> None:
    engine = engine_for(model)
    engine.submit(Request(id=1, prefix=(4, 5, 6), n=8, max_tokens=100, seed=1))
    polls = 0
    while not (found := engine.poll(0.0)):
        polls += 1
    assert polls > 20
    assert [completion.id for completion in found] == [1]
    start = time.monotonic()
    assert engine.poll(36_000.0) == [], "nothing is in flight: there is nothing to wait for"
    assert time.monotonic() - start < 3600

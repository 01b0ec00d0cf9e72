"""The hostile set through a pool. Times are not asserted here beyond a wide margin: the benchmark measures them."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verifiers.hostile import CANARY, hostile_answers
from verifiers import STYLES, VerifierPool, extract_answer
from verifiers.verdict import OUTCOMES

ALL = hostile_answers()
KINDS = sorted({kind for kind, _, _ in ALL})
DEADLINE = 0.5


@pytest.fixture(scope="module", autouse=True)
def left_overs_of_others() -> Iterator[None]:
    """What the rest of the suite has left in this process is not collected meanwhile: that alone can take a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=1, deadline=DEADLINE, memory=512) as made:
        made.warm_up()
        yield made


def test_the_set_is_large() -> None:
    assert len(ALL) >= 300
    assert len({(reference, answer) for _, reference, answer in ALL}) >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hostile_is_right_runs_or_stays(pool: VerifierPool, kind: str) -> None:
    Path(CANARY).unlink(missing_ok=True)
    for name, reference, answer in ALL:
        if name != kind:
            continue
        start = time.process_time()
        verdict = pool.verify(reference, answer)
        own = time.process_time() - start
        assert verdict.outcome in OUTCOMES
        assert not verdict, (reference[:60], answer[:60], verdict)
        assert own < 1.0, (answer[:60], own)
        assert pool.verify("1/2", "0.5"), "the next verdict is wrong"
    assert not Path(CANARY).exists()
    assert pool.peak_memory() < 512 + 300


def test_the_calling_process_stays_responsive(pool: VerifierPool) -> None:
    gaps: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        # The processor time that this process spends between two beats is the time for which the other thread kept
        # the interpreter to itself: unlike the time of the clock, it does not grow on a busy machine.
        last = time.process_time()
        while not stop.wait(0.002):
            now = time.process_time()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for _, reference, answer in ALL:
            pool.verify(reference, answer)
    finally:
        stop.set()
        thread.join()
    assert len(gaps) > len(ALL) / 10
    assert max(gaps) < 0.5


@pytest.mark.parametrize("style", STYLES)
def test_extraction_survives_them_all(style: str) -> None:
    for kind, _, answer in ALL:
        if kind in ("symbolic", "factorials", "towers"):
            continue
        start = time.process_time()
        found = extract_answer(answer, style)
        assert found is None or found
        assert time.process_time() - start < 1.0, answer[:60]

"""The hostile set through a pool. Times are not asserted here beyond a wide margin: the benchmark measures them."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verifiers.hostile import CANARY, hostile_answers, powers
from verifiers import STYLES, VerifierPool, extract_answer
from verifiers.allowance import Spent, allowance
from verifiers.api import cheap_verdict
from verifiers.compare.numeric import investigate
from verifiers.parse.parser import parse
from verifiers.text import undoubled
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


def test_no_power_keeps_the_calling_process_whatever_its_base() -> None:
    for reference, answer in powers()[::3]:
        start = time.process_time()
        verdict = cheap_verdict(reference, answer)
        assert time.process_time() - start < 1.0, answer
        assert verdict is None or not verdict, (answer, verdict)


def test_a_run_of_backslashes_is_read_in_linear_time() -> None:
    spent = []
    for count in (4_000, 64_000):
        start = time.process_time()
        undoubled("\\" * count + " 5")
        spent.append(time.process_time() - start)
    assert spent[1] < 1.0, spent


@pytest.mark.parametrize("base", ["0.99", "(\\sin 1)", "1.0000001", "2", "(\\cos 1+i\\sin 1)"])
def test_an_exponent_is_bounded_by_its_bits(base: str) -> None:
    """Each evaluation counts its steps; a thousand of them would be spent on one power by multiplication alone."""
    (left,), (right,) = parse("\\sqrt{2}"), parse(f"{base}^{{\\pi^{{1000000}}}}")
    finding, reason = investigate(left, right)
    assert (finding, reason) == ("unknown", "a power too large")
    assert investigate(left, parse(f"{base}^{{\\pi^{{10}}}}")[0])[0] == "different"


def test_the_caller_spends_no_more_than_its_allowance() -> None:
    slow = "\\sum_{k=1}^{400} \\sin(k)^{\\sqrt{2}}"
    assert cheap_verdict(f"{slow}", f"{slow}+10^{{-500}}") is None
    with pytest.raises(Spent), allowance(50):
        investigate(parse(slow)[0], parse(f"{slow}+10^{{-500}}")[0])
    with allowance(10), allowance(100_000):
        assert investigate(parse(slow)[0], parse("5")[0])[0] == "different"


@pytest.mark.parametrize("style", STYLES)
def test_extraction_survives_them_all(style: str) -> None:
    for kind, _, answer in ALL:
        if kind in ("symbolic", "factorials", "towers", "powers"):
            continue
        start = time.process_time()
        found = extract_answer(answer, style)
        assert found is None or found
        assert time.process_time() - start < 1.0, answer[:60]

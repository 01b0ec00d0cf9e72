"""Workers: every way to call them, and what happens when they overstep."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from verifiers import Policy, VerifierPool, verify

PROVABLE = ("\\sin(2x)", "2\\sin x\\cos x")
REFUTED = ("\\sin(2x)", "2\\sin x")
ENDLESS = ("\\sum_{i=1}^{90}\\sum_{j=1}^{90}\\sum_{k=1}^{90} \\sin(ijk)", "5")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, deadline=3.0) as made:
        made.warm_up()
        yield made


def test_a_proof_is_found_in_a_worker(pool: VerifierPool) -> None:
    verdict = pool.verify(*PROVABLE)
    assert (verdict.outcome, verdict.layer) == ("equal", "symbolic")
    assert pool.verify(*REFUTED).outcome == "unequal"
    assert pool.verify(b"1/2", "0.5")


def test_batches_keep_their_order_and_policies(pool: VerifierPool) -> None:
    pairs = [("1", "1"), PROVABLE, REFUTED, ("x", None), PROVABLE, ("10\\%", "10")]
    outcomes = [verdict.outcome for verdict in pool.verify_batch(pairs)]
    assert outcomes == ["equal", "equal", "unequal", "unparsed", "equal", "equal"]
    rules = [Policy(percent="value")] * len(pairs)
    assert pool.verify_batch(pairs, policy=rules)[-1].outcome == "unequal"
    with pytest.raises(ValueError, match="2 policies for 6 pairs"):
        pool.verify_batch(pairs, policy=rules[:2])


def test_many_threads_share_the_pool(pool: VerifierPool) -> None:
    results: list[bool] = []

    def ask() -> None:
        results.extend(bool(pool.verify(*PROVABLE)) and not pool.verify(*REFUTED) for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 18


def test_asyncio_keeps_turning_while_a_proof_runs(pool: VerifierPool) -> None:
    async def main() -> tuple[list[str], int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        task = asyncio.create_task(beat())
        verdicts = await asyncio.gather(
            *(pool.verify_async(*pair) for pair in (PROVABLE, REFUTED, ("1", "1"), PROVABLE))
        )
        task.cancel()
        return [verdict.outcome for verdict in verdicts], beats

    outcomes, beats = asyncio.run(main())
    assert outcomes == ["equal", "unequal", "equal", "equal"]
    assert beats > 0


def test_a_worker_that_oversteps_is_replaced_and_the_next_verdict_is_right() -> None:
    with VerifierPool(workers=1, deadline=0.3) as pool:
        pool.warm_up()
        first = pool._idle[0].pid
        assert pool.verify(*ENDLESS).outcome in ("timeout", "unequal", "too_large", "unparsed")
        os.kill(pool._idle[0].pid, signal.SIGKILL)
        dead = pool.verify(*PROVABLE)
        assert dead.outcome in ("too_large", "timeout")
        pool.deadline = 5.0
        assert pool.verify(*PROVABLE)
        assert pool._idle[0].pid != first
        assert pool.peak_memory() > 10


def test_a_dead_nursery_is_replaced() -> None:
    with VerifierPool(workers=1, deadline=5.0) as pool:
        pool.warm_up()
        assert pool._nursery is not None
        pool._nursery.process.kill()
        pool._nursery.process.wait()
        outcomes = [pool.verify(*PROVABLE).outcome for _ in range(3)]
        assert outcomes[-1] == "equal"


def test_the_callers_own_alarm_and_handlers_are_left_alone(pool: VerifierPool) -> None:
    fired: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: fired.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 30)
        assert pool.verify(*PROVABLE)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 1
        assert not fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_child(queue: "multiprocessing.SimpleQueue[str]") -> None:
    queue.put(verify(*PROVABLE).outcome)


def test_it_works_in_a_daemonic_process() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,), daemon=True)
    child.start()
    assert queue.get() == "equal"
    child.join()


def test_it_works_after_a_fork_that_copied_a_running_pool() -> None:
    code = (
        "import os\n"
        "from verifiers import VerifierPool\n"
        "pool = VerifierPool(deadline=5.0)\n"
        f"pair = {PROVABLE!r}\n"
        "assert pool.verify(*pair)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ok = bool(pool.verify(*pair))\n"
        "    pool.close()\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert pool.verify(*pair)\n"
        "pool.close()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


def test_no_process_is_left_behind() -> None:
    code = (
        f"from verifiers import verify; verify(*{PROVABLE!r});"
        "from verifiers.pool import default_pool; print(default_pool()._idle[0].pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    pid = int(done.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_settings_out_of_range_and_closed_pools_are_refused() -> None:
    with pytest.raises(ValueError, match="workers: 0"):
        VerifierPool(workers=0)
    with pytest.raises(ValueError, match="deadline: -1"):
        VerifierPool(deadline=-1)
    with pytest.raises(ValueError, match="memory: 1"):
        VerifierPool(memory=1)
    made = VerifierPool()
    made.close()
    assert made.verify("1", "1")
    with pytest.raises(ValueError, match="closed"):
        made.verify(*PROVABLE)

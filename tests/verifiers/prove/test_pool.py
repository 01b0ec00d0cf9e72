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
from verifiers.prove.pool import _Worker

PROVABLE = ("\\sin(2x)", "2\\sin x\\cos x")
REFUTED = ("\\sin(2x)", "2\\sin x")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, deadline=60.0) as made:
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
        os.kill(first, signal.SIGSTOP)  # it takes longer than any deadline
        verdict = pool.verify(*PROVABLE)
        assert verdict.outcome == "timeout"
        assert verdict.undecided
        assert not verdict
        pool.deadline = 60.0
        assert pool.verify(*PROVABLE)
        assert pool._idle[0].pid != first
        assert pool.peak_memory() > 10


def test_the_question_of_a_killed_worker_is_asked_again() -> None:
    with VerifierPool(workers=1, deadline=60.0) as pool:
        pool.warm_up()
        for _ in range(3):
            os.kill(pool._idle[0].pid, signal.SIGKILL)
            assert pool.verify(*PROVABLE)
        busy = pool._idle[0].pid
        os.kill(busy, signal.SIGSTOP)
        killer = threading.Timer(0.3, os.kill, (busy, signal.SIGKILL))
        killer.start()
        assert pool.verify(*PROVABLE), "the worker was killed in the middle of it"
        killer.join()
        assert pool._idle[0].pid != busy


class _Deadly(VerifierPool):
    """A pool each of whose workers is killed when it gets a question."""

    def _take(self, patience: float | None = None) -> _Worker:
        worker = super()._take(patience)
        os.kill(worker.pid, signal.SIGKILL)
        return worker


def test_a_question_whose_workers_all_die_is_undecided() -> None:
    with _Deadly(workers=1, deadline=60.0) as pool:
        verdict = pool.verify(*PROVABLE)
        assert verdict.undecided
        assert "died twice" in verdict.reason
        assert [one.outcome for one in pool.verify_batch([PROVABLE, ("1", "1")])] == ["timeout", "equal"]


def test_a_system_without_sockets_or_processes_gives_verdicts_not_errors() -> None:
    code = (
        "import os, resource\n"
        "from verifiers import VerifierPool, equivalence_classes, verify\n"
        f"pair = {PROVABLE!r}\n"
        "pool, other = VerifierPool(deadline=30.0), VerifierPool(deadline=30.0)\n"
        "assert pool.verify(*pair)\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1, hard))\n"
        "found = other.verify(*pair)\n"
        "assert found.undecided and 'no worker could be started' in found.reason, found\n"
        "assert [one.outcome for one in other.verify_batch([pair, ('1', '1')])] == ['timeout', 'equal']\n"
        "assert equivalence_classes(pair) == [[0], [1]]\n"
        "assert pool.verify(*pair), 'the other pool has its worker already'\n"
        "pool._nursery.kill(pool._idle[0])\n"
        "assert pool.verify(*pair).undecided\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "assert pool.verify(*pair) and other.verify(*pair) and verify(*pair)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dead_nursery_is_replaced() -> None:
    with VerifierPool(workers=1, deadline=60.0) as pool:
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
        "pool = VerifierPool(deadline=60.0)\n"
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
        "from verifiers.prove.pool import default_pool; print(default_pool()._idle[0].pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    pid = int(done.stdout)
    for _ in range(6000):
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

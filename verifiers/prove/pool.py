"""Runs proofs in a pool of warm worker processes with deadlines, from any thread, event loop or process.

In: pairs of answers. Out: verdicts. The cheap layers run in the calling thread. Proofs run in a worker. The pool kills
and replaces a worker that exceeds its deadline. No signal, alarm or patch touches the calling process. The workers are
not children that :mod:`multiprocessing` must allow.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verifiers.api import Text, cheap_verdict
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.prove.worker import receive, send
from verifiers.verdict import Verdict

START_SECONDS = 120.0
AGAIN = 0.4
"""The smallest share of the deadline for a question that is asked again because its worker died."""
LATEST = 1.4
"""The number of deadlines after which the pool stops waiting for the second answer to a question."""


class _Broken(Exception):
    """A worker or the nursery is gone."""


class _NoWorker(Exception):
    """The system gives no process or no socket for another worker."""


class _Worker:
    """One warm process at the other end of a socket."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Returns the reply, or None when the time is over. Raises :class:`_Broken` when the worker died."""
        end = time.monotonic() + seconds
        try:
            send(self.connection, request)
            poller = select.poll()
            poller.register(self.connection, select.POLLIN)
            left = end - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return None
            self.connection.settimeout(max(0.05, end - time.monotonic()))
            reply = receive(self.connection)
        except TimeoutError:
            return None
        except OSError as reason:
            raise _Broken(str(reason)) from reason
        finally:
            with contextlib.suppress(OSError):
                self.connection.settimeout(None)
        if reply is None:
            raise _Broken("the worker died")
        return reply


class _Nursery:
    """The process that holds sympy and forks workers."""

    def __init__(self, memory: int) -> None:
        here, there = _socket_pair()
        root = str(Path(__file__).resolve().parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from verifiers.prove.worker import main; main()"
        command = [sys.executable, "-c", code, str(memory)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(command, stdin=there.fileno(), stdout=subprocess.DEVNULL, env=environment)
        except OSError as reason:
            here.close()
            raise _NoWorker(str(reason)) from reason
        finally:
            there.close()
        self.control = here
        self.lock = threading.Lock()
        self.ready = False

    def _reply(self) -> dict[str, Any]:
        try:
            self.control.settimeout(START_SECONDS)
            reply = receive(self.control)
        except OSError as reason:
            raise _Broken(str(reason)) from reason
        if reply is None:
            raise _Broken("the nursery died")
        return reply

    def fork(self) -> _Worker:
        """Returns a new warm worker."""
        with self.lock:
            if not self.ready:
                self._reply()
                self.ready = True
            here, there = _socket_pair()
            try:
                socket.send_fds(self.control, [b"fork\n"], [there.fileno()])
            except OSError as reason:
                raise _Broken(str(reason)) from reason
            finally:
                there.close()
            reply = self._reply()
            if "error" in reply:
                here.close()
                raise _NoWorker(reply["error"])
            return _Worker(int(reply["pid"]), here)

    def kill(self, worker: _Worker) -> int:
        """Ends a worker now. Returns the most memory that it had, in KiB."""
        worker.connection.close()
        with self.lock:
            try:
                self.control.sendall(f"kill {worker.pid}\n".encode())
            except OSError as reason:
                raise _Broken(str(reason)) from reason
            return int(self._reply()["peak"])

    def close(self) -> None:
        """End the nursery, which takes its workers with it."""
        self.control.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair()
    except OSError as reason:
        raise _NoWorker(str(reason)) from reason


class VerifierPool:
    """Verifies answers with a deadline for every proof.

    ``workers``: proofs that may run at once (at least 1). ``deadline``: seconds for one proof; after that time the pool
    kills and replaces its worker. The search for a proof gives up after six tenths of the deadline, so that numeric
    evidence can decide. If a worker dies, the pool asks its question once more. No verdict takes longer than one and a
    half deadlines of work. ``memory``: MiB that one worker may use beyond the loaded libraries.

    The pool works from any thread, from asyncio, after a fork and in daemonic processes. It is a context manager.
    Raises ``ValueError`` for values out of range.
    """

    def __init__(self, workers: int = 1, deadline: float = 0.5, memory: int = 512) -> None:
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers: {workers!r} (accepted: an integer of at least 1)")
        if not deadline > 0:
            raise ValueError(f"deadline: {deadline!r} (accepted: seconds above 0)")
        if not isinstance(memory, int) or memory < 64:
            raise ValueError(f"memory: {memory!r} (accepted: MiB, an integer of at least 64)")
        self.workers = workers
        self.deadline = float(deadline)
        self.memory = memory
        self._owner = 0
        self._closed = False
        self._lock = threading.Lock()
        self._reset()

    # ------------------------------------------------------------------ verdicts

    def verify(self, reference: Text, answer: Text, *, policy: Policy = DEFAULT_POLICY) -> Verdict:
        """Returns one verdict, like :func:`verifiers.verify`, within the limits of the pool."""
        verdict = cheap_verdict(reference, answer, policy)
        return self._proved(reference, answer, policy) if verdict is None else verdict

    async def verify_async(self, reference: Text, answer: Text, *, policy: Policy = DEFAULT_POLICY) -> Verdict:
        """Returns one verdict and does not block the event loop while a proof runs."""
        verdict = cheap_verdict(reference, answer, policy)
        if verdict is not None:
            return verdict
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor(), lambda: self._proved(reference, answer, policy))

    def verify_batch(
        self, pairs: Iterable[tuple[Text, Text]], *, policy: Policy | Sequence[Policy] = DEFAULT_POLICY
    ) -> list[Verdict]:
        """Returns verdicts in the order of the pairs; proofs run in parallel. ``policy``: one for all, or one each."""
        known = list(pairs)
        policies = [policy] * len(known) if isinstance(policy, Policy) else list(policy)
        if len(policies) != len(known):
            raise ValueError(f"policy: {len(policies)} policies for {len(known)} pairs")
        cheap = [cheap_verdict(a, b, rule) for (a, b), rule in zip(known, policies, strict=True)]
        executor = self._executor()
        jobs = {
            i: executor.submit(self._proved, *known[i], policies[i])
            for i, verdict in enumerate(cheap)
            if verdict is None
        }
        return [verdict if verdict is not None else jobs[i].result() for i, verdict in enumerate(cheap)]

    def prove_within(self, seconds: float, reference: str, answer: str, policy: Policy = DEFAULT_POLICY) -> Verdict:
        """Returns the verdict of a worker, whatever the cheap layers say. ``seconds``: its own deadline, above 0."""
        return self._proved(reference, answer, policy, seconds)

    def prepare(self) -> None:
        """Starts a worker if none is idle, so that the next proof need not wait; does nothing if that is impossible."""
        with contextlib.suppress(_NoWorker, _Broken):
            self._give(self._take())

    def warm_up(self) -> None:
        """Start every worker now, instead of at the first proof."""
        workers = [self._take() for _ in range(self.workers)]
        for worker in workers:
            self._give(worker)

    def peak_memory(self) -> float:
        """Returns the most memory that any worker, killed or idle, had so far, in MiB, with its loaded libraries."""
        peaks = [self._peak]
        with self._lock:
            pids = [worker.pid for worker in self._idle]
        for pid in pids:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                peaks += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        return max(peaks) / 1024

    # ------------------------------------------------------------------ workers

    def _reset(self) -> None:
        """Forget processes of another process (after a fork) or none at all (at the start)."""
        self._owner = os.getpid()
        self._nursery: _Nursery | None = None
        self._idle: list[_Worker] = []
        self._slots = threading.Semaphore(self.workers)
        self._threads: ThreadPoolExecutor | None = None
        self._peak = 0

    def _own(self) -> None:
        if self._owner != os.getpid():
            self._lock = threading.Lock()
            self._reset()
        if self._closed:
            raise ValueError("the pool is closed")

    def _executor(self) -> ThreadPoolExecutor:
        self._own()
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verifiers")
            return self._threads

    def _proved(self, reference: Text, answer: Text, policy: Policy, seconds: float | None = None) -> Verdict:
        assert reference is not None
        assert answer is not None
        texts = [side if isinstance(side, str) else bytes(side).decode() for side in (reference, answer)]
        deadline = self.deadline if seconds is None else seconds
        request = {"reference": texts[0], "answer": texts[1], "policy": asdict(policy), "seconds": 0.6 * deadline}
        spent, reason = 0.0, ""
        for _ in (1, 2):
            try:
                worker = self._take(seconds)
            except _NoWorker as failure:
                reason = f"no worker could be started: {failure}"
                continue
            except _Broken as failure:
                self._drop_nursery()
                reason = f"no worker could be started: {failure}"
                continue
            begun = time.monotonic()
            limit = min(deadline, max(AGAIN * deadline, LATEST * deadline - spent))
            try:
                reply = worker.ask(request, limit)
            except _Broken as failure:
                self._replace(worker)
                spent, reason = time.monotonic() - begun, f"the worker died twice: {failure}"
                continue
            except BaseException:
                self._replace(worker)
                raise
            if reply is None:
                self._replace(worker)
                return Verdict("timeout", reason=f"no proof within {limit:g} s")
            self._give(worker)
            return Verdict(**reply)
        return Verdict("timeout", reason=f"no verdict: {reason}")

    def _take(self, patience: float | None = None) -> _Worker:
        """Returns a worker for one question. Waits the given number of seconds (None: without a limit)."""
        self._own()
        if not self._slots.acquire(timeout=patience):
            raise _NoWorker("all are busy")
        try:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
                if self._nursery is None:
                    self._nursery = _Nursery(self.memory)
                    _OPEN.add(self)
                nursery = self._nursery
            return nursery.fork()
        except BaseException:
            self._slots.release()
            raise

    def _give(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)
        self._slots.release()

    def _replace(self, worker: _Worker) -> None:
        """Kill a worker and put a fresh one in its place."""
        try:
            nursery = self._nursery
            if nursery is None:
                return
            self._peak = max(self._peak, nursery.kill(worker))
            fresh = nursery.fork()
            with self._lock:
                self._idle.append(fresh)
        except _NoWorker:
            pass  # the next question tries again to start one
        except _Broken:
            self._drop_nursery()
        finally:
            self._slots.release()

    def _drop_nursery(self) -> None:
        with self._lock:
            nursery, self._nursery, self._idle = self._nursery, None, []
        if nursery is not None:
            nursery.close()

    def close(self) -> None:
        """Ends all processes and threads of the pool; the pool cannot be used again."""
        if self._owner == os.getpid():
            if self._threads is not None:
                self._threads.shutdown(wait=True)
            self._drop_nursery()
        self._closed = True
        _OPEN.discard(self)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_OPEN: set[VerifierPool] = set()
_DEFAULT: list[VerifierPool] = []
_DEFAULT_LOCK = threading.Lock()


def default_pool() -> VerifierPool:
    """Returns the pool of one worker that :func:`verifiers.verify` uses. The first proof creates it."""
    with _DEFAULT_LOCK:
        if not _DEFAULT:
            _DEFAULT.append(VerifierPool(workers=1))
        return _DEFAULT[0]


@atexit.register
def _close_all() -> None:
    for pool in list(_OPEN):
        if pool._owner == os.getpid():
            pool.close()

"""Runs proofs in separate processes, the nursery and its workers, so that a proof can be killed.

In: commands and requests as JSON over Unix sockets. Out: replies in JSON. The nursery loads sympy once. It forks a warm
worker for each ``fork`` command (the worker's socket comes with the command). It kills one worker for each ``kill``
command. It ends all workers when its own socket closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from verifiers.compare.layers import NeedsFallback, decide_texts
from verifiers.limits import TooLarge
from verifiers.parse.tree import Node
from verifiers.policy import Policy
from verifiers.verdict import Verdict

FRAME_LIMIT = 64 * 1024 * 1024


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Write one length-prefixed JSON message."""
    data = json.dumps(message).encode()
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream."""
    head = _read(connection, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    body = _read(connection, size) if size <= FRAME_LIMIT else None
    return None if body is None else dict(json.loads(body))


def _read(connection: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = connection.recv(min(size, 65536))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def nursery(control: socket.socket, memory: int) -> None:
    """Serves ``fork`` and ``kill`` until the socket closes. ``memory``: MiB that a worker may add to this process."""
    import verifiers.prove.symbolic  # noqa: F401 - warm before the first fork
    from verifiers.prove.fallback import warm_up

    warm_up()
    from verifiers.quantities.unit_table import known

    known("metre")  # pint is loaded by the first unit

    children: set[int] = set()
    send(control, {"ready": os.getpid()})
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 256, 1)
        except OSError:
            break
        if not data:
            break
        for line in data.decode().split("\n"):
            if line == "fork" and descriptors:
                try:
                    child = os.fork()
                except OSError as reason:  # no more processes, for now
                    os.close(descriptors[0])
                    send(control, {"error": str(reason)})
                    continue
                if child == 0:
                    control.close()
                    _work(socket.socket(fileno=descriptors[0]), memory)
                os.close(descriptors[0])
                children.add(child)
                send(control, {"pid": child})
            elif line.startswith("kill "):
                child = int(line[5:])
                peak = 0
                if child in children:
                    children.discard(child)
                    peak = _end(child)
                send(control, {"killed": child, "peak": peak})
    for child in children:
        _end(child)


def _end(child: int) -> int:
    """Kills a worker. Returns the most memory that it had, in KiB."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        return os.wait4(child, 0)[2].ru_maxrss
    return 0


def _work(connection: socket.socket, memory: int) -> None:
    """Answers requests until the socket closes, then exits without unwinding into the nursery."""
    try:
        _bound(memory)
        while (request := receive(connection)) is not None:
            send(connection, answer(request))
    except BaseException:
        os._exit(1)
    os._exit(0)


def _bound(memory: int) -> None:
    with open("/proc/self/statm") as status:
        used = int(status.read().split()[0]) * resource.getpagesize()
    limit = used + memory * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the reply to one request: the fields of a verdict."""
    policy = Policy(**request["policy"])
    try:
        verdict = _judged(request["reference"], request["answer"], policy, float(request["seconds"]))
    except TooLarge as reason:
        verdict = Verdict("too_large", reason=str(reason))
    except (MemoryError, RecursionError, OverflowError) as reason:
        verdict = Verdict("too_large", reason=f"{type(reason).__name__} in the worker")
    except OSError as reason:
        verdict = Verdict("timeout", reason=f"no verdict: {type(reason).__name__} in the worker: {str(reason)[:120]}")
    except Exception as reason:
        verdict = Verdict("unparsed", reason=f"{type(reason).__name__} in the worker: {str(reason)[:120]}")
    return {
        "outcome": verdict.outcome,
        "layer": verdict.layer,
        "reference": verdict.reference,
        "answer": verdict.answer,
        "reason": verdict.reason,
    }


class _OutOfTime(BaseException):
    """Signals the soft deadline inside a worker. No ``except Exception`` of a library may swallow it."""


class _TimedProver:
    """A prover that gives up and returns None when the request's soft deadline has passed.

    The timer signal belongs to the worker and never reaches the process that asked. ``late``: whether it gave up.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.late = False

    def __call__(self, a: Node, b: Node) -> bool | None:
        from verifiers.prove.symbolic import prove

        left = self.end - time.monotonic()
        if left <= 0.005:
            self.late = True
            return None
        try:
            signal.signal(signal.SIGALRM, _raise_out_of_time)
            signal.setitimer(signal.ITIMER_REAL, left)
            try:
                return prove(a, b)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _OutOfTime:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.late = True
            return None


def _raise_out_of_time(number: int, frame: object) -> None:
    raise _OutOfTime


def _judged(reference: str, given: str, policy: Policy, seconds: float) -> Verdict:
    prover = _TimedProver(seconds)
    try:
        found = decide_texts(reference, given, policy, prover)
        undecided = prover.late and found.outcome == "unparsed"  # both sides were read; only the time was too short
        return replace(found, outcome="timeout") if undecided else found
    except NeedsFallback as needs:
        from verifiers.prove.fallback import judge

        return judge(reference, given, needs.verdict)


def main() -> None:
    """Run the nursery on the socket that is file descriptor 0."""
    control = socket.socket(fileno=os.dup(0))
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(quiet, descriptor)
    sys.setrecursionlimit(3000)
    nursery(control, int(sys.argv[1]))


if __name__ == "__main__":
    main()

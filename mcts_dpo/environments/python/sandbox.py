"""A running sandbox: its first process, forks from any process in it, and its end.

`Sandbox.fork` is all that the interpreter needs. Whatever happens inside, `close` leaves nothing running: the processes
live in a process namespace, which the kernel ends as a whole. The kernel does the same when this process dies.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.environments.python.bubblewrap import ALTERNATIVE, SandboxKind, bubblewrap_command, plain_command
from mcts_dpo.environments.python.limits import PythonLimits
from mcts_dpo.environments.python.process import MESSAGE_BYTES, Lost, Process, namespace_of, parent_of, socket_pair
from mcts_dpo.environments.python.seccomp import Gate, filters, number_of

logger = logging.getLogger(__name__)

START_SECONDS = 120.0
"""For the first process to import what is preloaded."""
FORK_SECONDS = 5.0
"""At most, for a state to fork. It waits for nothing else, so only a hostile one takes so long."""
END_SECONDS = 10.0
"""For the kernel to end all processes."""
OPEN_FILES = 64
"""Descriptors of a process."""
SCRATCH_FILES = 4096
"""Files and directories in the scratch file system."""
MARGIN_MB = 32
"""Address space that a process needs beyond what the first one has."""


class Sandbox:
    """Processes forked from one another, all from one first process.

    Raises InputError, in one line, if this machine cannot enforce the sandbox or the limits leave no room.
    """

    def __init__(self, limits: PythonLimits, kind: SandboxKind) -> None:
        self._limits, self._kind = limits, kind
        self._fork_seconds = min(FORK_SECONDS, limits.wall_seconds / 2)  # a path tries twice
        self._folder = tempfile.mkdtemp(prefix="mcts-dpo-") if kind == "none" else None
        self._command = plain_command(self._folder) if self._folder else bubblewrap_command()
        self._filters = () if self._folder else _filters()
        self._started: subprocess.Popen[bytes] | None = None
        self._gate: Gate | None = None
        self._namespace: str | None = None
        self._lock = threading.Lock()
        self._known: dict[int, Process] = {}
        self._stop, self._stopped = os.pipe()
        started: queue.SimpleQueue[Process | BaseException] = queue.SimpleQueue()
        # The kernel ends the sandbox when the thread that started it ends: not one of our callers' threads.
        self._thread = threading.Thread(target=self._live, args=(started,), name="sandbox", daemon=True)
        self._thread.start()
        first = started.get()
        if isinstance(first, BaseException):
            self._thread.join()
            self._clean()
            raise first
        self.first = first
        self.first_mb = first.resident_mb()

    def alive(self, grace: float = 0.0) -> bool:
        """Whether the sandbox runs, and will for `grace` seconds. Its processes do not end at the very same moment."""
        started = self._started
        return started is not None and started.poll() is None and not self.first.wait(grace)

    def fork(self, parent: Process, scratch: str, code: str) -> Process:
        """Fork a process, and let the child run a block; `Process.reply` waits for the reply.

        Args:
            parent:  waits, after its own block.
            scratch: the name of the child's scratch directory; new, and not to be guessed.
            code:    of the child's block.

        Raises Lost if there is no child. Then the parent is killed, unless it is the first process.
        """
        ours, theirs = socket_pair()
        child: Process | None = None
        try:
            with parent.forking, theirs, self._gate.one_fork(parent.pid) if self._gate else contextlib.nullcontext():
                parent.send(b"F", theirs.fileno())
                theirs.close()
                child = Process(ours, self._fork_seconds, self._belongs)
            with self._lock:
                known = self._known.setdefault(child.pid, child)
            if known is not child:
                child = None
                raise Lost  # the parent spoke for a child that it did not make
            # Not before: a block that ends its process at once would look like a parent that does not fork.
            child.send(f"{scratch}\n{code}".encode("utf-8", "replace"))
        except (Lost, OSError):
            if child is not None:
                self.end(child)
            if parent is not self.first:
                parent.kill()
                parent.wait(END_SECONDS)
                self._sweep()
            raise Lost from None
        return child

    def end(self, process: Process) -> None:
        """End a process."""
        process.kill()
        with self._lock:
            self._known.pop(process.pid, None)
        if self._gate:
            self._gate.forget(process.pid)

    def remove(self, scratch: str) -> None:
        """Remove a scratch directory."""
        with contextlib.suppress(Lost):
            self.first.send(b"R" + scratch.encode())

    def close(self) -> None:
        """End all processes. Returns when they are gone."""
        os.write(self._stopped, b"x")
        self._thread.join()
        self._clean()

    # --- the thread that started it -------------------------------------------------------------------

    def _live(self, started: queue.SimpleQueue[Process | BaseException]) -> None:
        """Start the first process, then answer requests to fork until the end."""
        ours, theirs = socket_pair()
        try:
            with tempfile.TemporaryFile() as errors, theirs:
                self._started = subprocess.Popen(
                    (*self._command.arguments, str(theirs.fileno())),
                    env=self._command.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                theirs.close()
                first = self._greeted(ours, errors)
                self._prepare(first)
            started.put(first)
            if self._gate:
                self._gate.answer_until(self._stop, self._kill_known)
            else:
                os.read(self._stop, 1)
        except BaseException as error:
            logger.debug("python environment: the sandbox ends: %s", error)
            started.put(error)
        finally:
            if self._gate:
                self._gate.close()
            if self._started is not None:
                self._end(self._started)

    def _greeted(self, ours: socket.socket, errors: Any) -> Process:
        """The first process, when it says that it is there."""
        try:
            first = Process(ours, START_SECONDS, lambda pid: True)
        except Lost:
            errors.seek(0)
            said = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
            reason = said[-1] if said else "it ended without a message"
            raise InputError(
                f"sandbox: {self._kind!r} does not work on this machine ({reason}); {ALTERNATIVE}"
            ) from None
        self._known[first.pid] = first
        if self._folder is None:
            self._namespace = namespace_of(first.pid)
        # If memory runs out, the kernel ends these processes before any other.
        with contextlib.suppress(OSError), open(f"/proc/{first.pid}/oom_score_adj", "w") as file:
            file.write("1000")
        return first

    def _prepare(self, first: Process) -> None:
        """Send the settings, and wait until all is set."""
        first.channel.settimeout(START_SECONDS)
        try:
            first.channel.send(json.dumps(self._settings()).encode())
            room = socket.CMSG_SPACE(struct.calcsize("3i")) + socket.CMSG_SPACE(struct.calcsize("i"))
            message, ancillary, _, _ = first.channel.recvmsg(MESSAGE_BYTES, room)
        except OSError:
            message, ancillary = b"", []
        told: dict[str, Any] = json.loads(message or b'{"error": "it ended during its set-up"}')
        if "error" in told:
            raise InputError(f"sandbox: {self._kind!r} cannot be enforced here ({told['error']}); {ALTERNATIVE}")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                self._gate = Gate(struct.unpack("i", data[:4])[0])
        for name in told["missing"]:
            logger.warning("python environment: preload: %r is not installed, and is skipped", name)
        first.channel.settimeout(None)
        needed = math.ceil(first.address_mb()) + MARGIN_MB
        if needed > self._limits.memory_mb:
            raise InputError(
                f"memory_mb: {self._limits.memory_mb} is too small: Python and the preloaded modules take "
                f"{needed - MARGIN_MB} MiB (accepted: an integer ≥ {needed})"
            )

    def _settings(self) -> dict[str, Any]:
        """What the first process is told; see `inside`."""
        limits = self._limits
        file_bytes = limits.file_mb * 2**20
        cpu_limit = math.ceil(limits.cpu_seconds) + 2  # the controller comes first; this limit needs no controller
        return {
            "filters": [one.hex() for one in self._filters],
            "seccomp": number_of("seccomp") if self._filters else None,
            "program": self._command.program,
            "packages": self._command.packages,
            "preload": limits.preload,
            "scratch": self._command.scratch,
            "scratch_bytes": limits.scratch_mb * 2**20,
            "scratch_files": SCRATCH_FILES,
            "message_bytes": MESSAGE_BYTES,
            "output_chars": limits.output_chars,
            "print_chars": limits.print_chars,
            "cpu_limit": cpu_limit,
            "alarm": 0 if self._filters else limits.wall_seconds + 1,
            "rlimits": {
                "RLIMIT_AS": limits.memory_mb * 2**20,
                "RLIMIT_FSIZE": file_bytes,
                "RLIMIT_NOFILE": OPEN_FILES,
                "RLIMIT_CORE": 0,
            },
        }

    def _end(self, started: subprocess.Popen[bytes]) -> None:
        """End everything, and wait for it."""
        with contextlib.suppress(OSError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        with self._lock:
            known = [*self._known.values()]
            self._known.clear()
        for process in known:
            if not process.wait(END_SECONDS):
                logger.warning("python environment: process %d does not end", process.pid)

    def _clean(self) -> None:
        for descriptor in (self._stop, self._stopped):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- which processes are ours ---------------------------------------------------------------------

    def _belongs(self, pid: int) -> bool:
        return self._namespace is None or namespace_of(pid) == self._namespace

    def _sweep(self) -> None:
        """End processes that nobody holds: a child that was forked, but never said so, of a parent that has ended."""
        if self._namespace is None:
            return
        reaper = parent_of(self.first.pid)
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(pid)
                with self._lock:
                    if self._belongs(pid) and parent_of(pid) == reaper and pid not in self._known:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os.close(descriptor)

    def _kill_known(self, pid: int) -> None:
        with self._lock:
            process = self._known.get(pid)
            if process is not None:
                process.kill()


def _filters() -> tuple[bytes, bytes]:
    """The filters of system calls. Raises InputError if the library that makes them is not installed."""
    try:
        return filters()
    except ImportError:
        lacks = "the package pyseccomp (`pip install 'mcts-dpo[python]'`)"
    except RuntimeError:
        lacks = "libseccomp (`apt-get install libseccomp2`)"
    raise InputError(f"sandbox: 'bubblewrap' needs {lacks}, which is not installed; {ALTERNATIVE}")

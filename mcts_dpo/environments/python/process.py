"""One process in the sandbox, as the controller holds it: a socket to talk to it and a descriptor to kill it.

Everything that a process sends is hostile: messages have a bounded length, waiting has a bounded time, and process ids
are the kernel's (SCM_CREDENTIALS), never the process's own word.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MESSAGE_BYTES = 200_000
"""The longest message; a socket takes that much at once."""
MOST_ERROR = 500
"""Characters of an error."""
_CREDENTIALS = struct.calcsize("3i")


@dataclass(frozen=True)
class Result:
    """What came of a block.

    output: what it printed to stdout, then the representation of its last expression, if it is one and not None.
    error:  the last line of the traceback, with the number of the line in the block; None if there was no error.
    cut:    whether there was more output than is shown.
    """

    output: str
    error: str | None
    cut: bool


class Ended(Exception):
    """A process did not send what it had to. The message says why, as the reply to its block does."""


class Lost(Exception):
    """A process that should fork did not: it has ended, cannot, or does not answer."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Our end and that of a process. Our end learns from the kernel who has sent a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    return ours, theirs


class Process:
    """A process in the sandbox, told apart from all others for as long as this object lives.

    Args:
        channel: our end of its socket; it is closed with this object.
        greet_seconds: how long its first message may take, in seconds.
        belongs: whether a process id, as seen from here, is one of the sandbox.

    Raises Lost if no process of the sandbox says that it is there.
    """

    def __init__(self, channel: socket.socket, greet_seconds: float, belongs: Callable[[int], bool]) -> None:
        self.channel, self.descriptor = channel, -1
        self.forking = threading.Lock()
        channel.settimeout(greet_seconds)
        try:
            message, ancillary, _, _ = channel.recvmsg(16, socket.CMSG_SPACE(_CREDENTIALS))
            if message != b"H" or not ancillary:
                raise Lost
            self.pid: int = struct.unpack("3i", ancillary[0][2][:_CREDENTIALS])[0]
            self.descriptor = os.pidfd_open(self.pid)
        except OSError:
            raise Lost from None
        if not belongs(self.pid) or not self.alive():  # in this order: an ended process's id may be another's
            raise Lost
        channel.settimeout(None)

    def alive(self) -> bool:
        """Whether the process runs."""
        return not self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most this long. Returns whether it has ended."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def cpu_seconds(self) -> float:
        """The CPU time that it has taken, in seconds; 0 if it has ended."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)  # see clock_getcpuclockid(3)
        except OSError:
            return 0.0

    def resident_mb(self) -> float:
        """Its memory in MiB, shared pages included; 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (OSError, IndexError, ValueError):
            return 0.0

    def address_mb(self) -> float:
        """Its address space in MiB."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def send(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a message, and a descriptor with it. Raises Lost."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))] if descriptor else []
        try:
            self.channel.sendmsg([message], rights, socket.MSG_DONTWAIT)
        except OSError:
            raise Lost from None

    def reply(self, cpu_seconds: float, wall_seconds: float) -> Result:
        """Wait for the reply to its block. Raises Ended, with the reason, if there is none."""
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        poller.register(self.descriptor, select.POLLIN)
        began = time.monotonic()
        pause = min(cpu_seconds, wall_seconds)
        while True:
            ready = dict(poller.poll(max(1.0, pause * 1000)))
            if self.channel.fileno() in ready:
                return self._read()
            if ready:
                raise Ended("RuntimeError: the process ended")
            elapsed, used = time.monotonic() - began, self.cpu_seconds()
            if used >= cpu_seconds:
                raise Ended(f"TimeoutError: more than {cpu_seconds:g} CPU seconds")
            if elapsed >= wall_seconds:
                raise Ended(f"TimeoutError: more than {wall_seconds:g} seconds")
            pause = min(cpu_seconds - used, wall_seconds - elapsed)

    def _read(self) -> Result:
        try:
            message, _, flags, _ = self.channel.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS))
        except OSError:
            message, flags = b"", 0
        if not message:
            raise Ended("RuntimeError: the process ended")
        bits, length = struct.unpack_from("!BI", message.ljust(5, b"\xff"))
        if flags & socket.MSG_TRUNC or bits > 3 or length > len(message) - 5:
            raise Ended("RuntimeError: the block sent something else than a reply")
        output, error = (part.decode("utf-8", "replace") for part in (message[5 : 5 + length], message[5 + length :]))
        return Result(output, error[:MOST_ERROR] if bits & 2 else None, bool(bits & 1))

    def kill(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Not before: another thread may wait for the process, and the numbers would soon be another's. `close` is held
        # here, because at the end of this program modules may be gone before their objects.
        self.channel.close()
        if self.descriptor >= 0:
            close(self.descriptor)


def namespace_of(pid: int) -> str:
    """The process namespace of a process; "" if it has ended, or is not ours to ask about."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0

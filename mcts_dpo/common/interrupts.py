"""Ctrl-C that is never lost: the first ends the command in order, the second ends the process at once.

Python raises KeyboardInterrupt wherever the main thread is. In a destructor or a callback of a library the exception is
dropped ("Exception ignored in …"), and the command would continue. So the interruption is also recorded. It is raised
again after it was dropped, and when the command next reports progress. A thread of its own receives the second signal,
so that it works whatever the main thread does.

In: signals. Out: KeyboardInterrupt, or the end of the process with exit code 130.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

TOLD = b"\nmcts-dpo: interrupted again; ended at once\n"
_SHOW_CURSOR = b"\x1b[?25h"
_AGAIN_AFTER = 0.05
"""Seconds until a dropped interruption is raised again. The destructor has returned by then."""
_ECHO = 1.0
"""Under torchrun, a second signal within this many seconds is the same one: torchrun passes signals on."""


def end_at_once() -> NoReturn:
    """Print a line and end the process with exit code 130, without clean-up. Safe in signal handlers and threads."""
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + TOLD)
    os._exit(130)


class _Guard:
    """The signal handler and its state. The process has one, in the main thread."""

    def __init__(self) -> None:
        self.interrupted = False
        self._first = 0.0
        self._repeats = 0
        self._expected = 0
        self._lock = threading.Lock()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._handle)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, name="interrupts", daemon=True).start()
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._unraisable

    def remove(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = self._hook_before
        os.close(self._writing)  # the thread reads the end of the pipe

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._repeats:
            self._repeats -= 1
        elif self.interrupted and not self._is_echo():
            end_at_once()
        elif not self.interrupted:
            self.interrupted, self._first = True, time.monotonic()
        raise KeyboardInterrupt

    def _hear(self) -> None:
        """Count the signals in a thread. The handler itself waits until the main thread runs Python code."""
        came = 0
        while data := os.read(self._reading, 64):
            for number in data:
                if number != signal.SIGINT:
                    continue
                with self._lock:
                    repeated, self._expected = self._expected > 0, max(0, self._expected - 1)
                came += not repeated
                if came == 1:
                    self._first = self._first or time.monotonic()
                elif not repeated and not self._is_echo():
                    end_at_once()
        os.close(self._reading)

    def _is_echo(self) -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._first < _ECHO

    def _unraisable(self, dropped: sys.UnraisableHookArgs) -> None:
        """Called when a destructor or callback drops an exception. Sends an interruption again a moment later."""
        if self.interrupted and dropped.exc_type is not None and issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(_AGAIN_AFTER, self._send_again).start()
        else:
            self._hook_before(dropped)

    def _send_again(self) -> None:
        with self._lock:
            self._expected += 1
        self._repeats += 1
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGINT)


_GUARD: list[_Guard] = []


@contextmanager
def guard() -> Iterator[None]:
    """Handle SIGINT while a command runs, and until the process ends once a signal has come.

    Does nothing if SIGINT is ignored (nohup) or already handled, and outside the main thread.
    """
    free = not _GUARD and threading.current_thread() is threading.main_thread()
    if not free or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _GUARD.append(_Guard())
    _GUARD[0].install()
    try:
        yield
    finally:
        if not _GUARD[0].interrupted:
            _GUARD.pop().remove()


def _leave() -> None:
    """Restore the default in a forked child: it must not write into its parent's pipe."""
    if _GUARD:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave)


def guarded() -> bool:
    """Whether `guard` handles SIGINT now."""
    return bool(_GUARD)


def check() -> None:
    """Raise KeyboardInterrupt if one was dropped. Call it where the command may end."""
    if _GUARD and _GUARD[0].interrupted and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextmanager
def left_to_others() -> Iterator[None]:
    """Let a server handle signals itself while the block runs, so that it can end its work in order."""
    before = signal.set_wakeup_fd(-1) if _GUARD else -1
    try:
        yield
    finally:
        if before != -1:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)

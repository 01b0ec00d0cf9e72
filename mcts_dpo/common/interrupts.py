"""Control-C that is never lost: the first ends the command in order, the second ends the process at once.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a destructor or a callback of a library it is
dropped ("Exception ignored in …"), and the command would go on as if nobody had asked. So the interruption is noted as
well: it is raised again when it was dropped, and whenever the command reports progress. The second signal is heard by a
thread of its own, whatever the main thread is doing.

In: signals. Out: KeyboardInterrupt, or the end of the process with exit code 130. Knows no command.
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
"""Seconds after a dropped interruption until it is raised again: by then the destructor has returned."""
_ECHO = 1.0
"""Seconds in which a second signal under torchrun, which passes on what the terminal sends to all, is the same one."""


def end_at_once() -> NoReturn:
    """Say so and end the process with exit code 130; nothing is cleaned up. Safe in a signal handler and any thread."""
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + TOLD)
    os._exit(130)


class _Guard:
    """The handler, and what it knows. One for the process, in the main thread."""

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
        os.close(self._writing)  # the thread reads the end

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._repeats:
            self._repeats -= 1
        elif self.interrupted and not self._is_echo():
            end_at_once()
        elif not self.interrupted:
            self.interrupted, self._first = True, time.monotonic()
        raise KeyboardInterrupt

    def _hear(self) -> None:
        """Count the signals as they come, in a thread; the handler runs only when the main thread is at Python code."""
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
        """A destructor or a callback has dropped an exception. An interruption is sent again a moment later."""
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
    """Take SIGINT over while a command runs, and for good once it came: the process then is on its way out.

    Does nothing where SIGINT is ignored (nohup) or handled already, and outside the main thread.
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
    """A forked child has the handler, but must not write into its parent's pipe."""
    if _GUARD:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave)


def guarded() -> bool:
    """Whether SIGINT is taken over."""
    return bool(_GUARD)


def check() -> None:
    """Raise KeyboardInterrupt if one came and was dropped on its way: for places where a command may well end."""
    if _GUARD and _GUARD[0].interrupted and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextmanager
def left_to_others() -> Iterator[None]:
    """Leave the counting of signals to somebody else (a server, which ends what is under way) while the block runs."""
    before = signal.set_wakeup_fd(-1) if _GUARD else -1
    try:
        yield
    finally:
        if before != -1:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)

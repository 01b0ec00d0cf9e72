"""Which system calls code in the sandbox may make, and who decides about forks.

The filters are programs for the kernel (BPF), made by libseccomp. A call that is not in the list fails with "Operation
not permitted". A fork is neither allowed nor forbidden: the kernel asks the holder of a descriptor each time, and waits
for the answer (seccomp_unotify(2)). `Gate` answers: yes once for each fork that the controller itself has asked a state
for, no to all others. So no program can start a process or a thread of its own, whatever it does to its memory.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from typing import Any

ALLOWED = {
    "reading and writing": "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek sendfile "
    "copy_file_range fsync fdatasync fadvise64 flock truncate ftruncate fallocate",
    "files": "open openat close close_range stat lstat fstat newfstatat fstatat64 statx statfs fstatfs access "
    "faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir rmdir unlink unlinkat rename "
    "renameat renameat2 link linkat symlink symlinkat utime utimes futimesat utimensat",
    "descriptors": "dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl "
    "epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime",
    "its own socket": "sendto recvfrom recvmsg shutdown getsockname getpeername getsockopt",
    "memory": "mprotect munmap mremap madvise brk mincore membarrier",
    "signals to itself": "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend "
    "sigaltstack pause restart_syscall getitimer setitimer alarm",
    "time": "nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times",
    "questions about itself": "getpid gettid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getresuid "
    "getresgid getgroups getrlimit setrlimit getrusage getpriority getcpu sched_yield sched_getaffinity sysinfo uname "
    "getrandom",
    "the C library, and the end": "arch_prctl set_tid_address set_robust_list rseq futex wait4 waitid exit exit_group",
}
"""None of these reaches another process, another file system, a device, the network or a setting of the kernel."""

FILE_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
"""Of fcntl(2): all but those that send signals (F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY) or seal and enlarge."""
DEVICE_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Of ioctl(2): is this a terminal, its size, bytes to read, (non-)blocking, close-on-exec."""
FORK_FLAGS, THREAD_FLAGS = 17, 0x01200000
"""Of clone(2): fork is SIGCHLD, and may let the kernel write and clear the child's thread id."""
MAP_TYPE, MAP_PRIVATE = 0x03, 0x02
OWNER = 0o700


def filters() -> tuple[bytes, bytes]:
    """Both filters: the one with the list, and one that forbids what was needed to install the first.

    Raises ImportError or RuntimeError if pyseccomp or libseccomp is not installed.
    """
    import pyseccomp as seccomp

    def matching(argument: int, value: int, mask: int) -> Any:
        return seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value)

    def rule(rules: Any, action: int, name: str, *conditions: Any) -> None:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number != -1:  # libseccomp knows the call
            rules.add_rule(action, number, *conditions)

    first = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in " ".join([*ALLOWED.values(), "sendmsg prctl seccomp"]).split():
        rule(first, seccomp.ALLOW, name)
    for command in FILE_COMMANDS:
        for name in ("fcntl", "fcntl64"):
            rule(first, seccomp.ALLOW, name, seccomp.Arg(1, seccomp.EQ, command))
    for command in DEVICE_COMMANDS:
        rule(first, seccomp.ALLOW, "ioctl", seccomp.Arg(1, seccomp.EQ, command))
    # Memory that is shared would be shared by siblings. Limits are for the process itself.
    rule(first, seccomp.ALLOW, "mmap", matching(3, MAP_PRIVATE, MAP_TYPE))
    rule(first, seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0))
    rule(first, seccomp.ALLOW, "socketpair", seccomp.Arg(0, seccomp.EQ, 1))
    # A directory that its owner cannot list or empty would stay.
    rule(first, seccomp.ALLOW, "mkdir", matching(1, OWNER, OWNER))
    rule(first, seccomp.ALLOW, "mkdirat", matching(2, OWNER, OWNER))
    rule(first, seccomp.ALLOW, "umask", matching(0, 0, OWNER))
    rule(first, seccomp.NOTIFY, "clone", matching(0, FORK_FLAGS, 0xFFFFFFFF & ~THREAD_FLAGS))
    rule(first, seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are in memory; the C library falls back to clone
    second = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in ("sendmsg", "prctl", "seccomp"):
        rule(second, seccomp.ERRNO(errno.EPERM), name)
    return _exported(first), _exported(second)


def _exported(rules: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def number_of(name: str) -> int:
    """The number of a system call on this machine."""
    import pyseccomp

    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


RECEIVE, SEND = 0xC0502100, 0xC0182101
"""Of ioctl(2) on the descriptor: SECCOMP_IOCTL_NOTIF_RECV and SECCOMP_IOCTL_NOTIF_SEND."""
CONTINUE = 1
MOST_REFUSALS = 1000
"""Forks that are refused to one process before it is killed."""


class Gate:
    """Answers the kernel's question whether a process in the sandbox may fork.

    listener: the descriptor that the kernel asks through; `close` closes it.
    """

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._granted: set[int] = set()
        self._refused: Counter[int] = Counter()

    @contextmanager
    def one_fork(self, pid: int) -> Iterator[None]:
        """Allow this process one fork inside the `with` block."""
        with self._lock:
            self._granted.add(pid)
        try:
            yield
        finally:
            with self._lock:
                self._granted.discard(pid)

    def forget(self, pid: int) -> None:
        """The process has ended."""
        with self._lock:
            self._refused.pop(pid, None)

    def answer_until(self, stop: int, on_bomb: Callable[[int], None]) -> None:
        """Answer until the descriptor `stop` can be read, or no process is left that could ask.

        on_bomb: called with the process id, as seen from here, of a process that keeps asking.
        """
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(stop, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if stop in ready or not ready[self._listener] & select.POLLIN:
                return
            self._answer(on_bomb)

    def close(self) -> None:
        """From now on, every fork fails."""
        os.close(self._listener)

    def _answer(self, on_bomb: Callable[[int], None]) -> None:
        question = bytearray(80)
        try:
            ioctl(self._listener, RECEIVE, question, True)
        except OSError:
            return  # the process was killed meanwhile
        identity, pid = struct.unpack_from("QI", question)
        with self._lock:
            allowed = pid in self._granted
            self._granted.discard(pid)
            self._refused[pid] += not allowed
            bomb = self._refused[pid] > MOST_REFUSALS
        error, flags = (0, CONTINUE) if allowed else (-errno.EPERM, 0)
        try:
            ioctl(self._listener, SEND, struct.pack("QqiI", identity, 0, error, flags))
        except OSError:
            return
        finally:
            if bomb:
                on_bomb(pid)

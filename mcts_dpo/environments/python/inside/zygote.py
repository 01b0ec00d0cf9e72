"""The first process inside the sandbox: it imports once, limits itself, and forks the first state of every path.

`sandbox.py` starts it with one end of a Unix socket that keeps message boundaries (SOCK_SEQPACKET).

Messages to the zygote, and to every state forked from it:
    b"F" and a descriptor: fork; the child speaks through the descriptor.
    b"R" and a name:       remove that scratch directory.
    nothing:               the controller is gone; exit.
Messages of a child: b"H" when it is born; then it reads the name of its scratch directory and the code of its block,
and sends one reply. After that it is a state that waits for messages. The controller trusts none of these.
"""

from __future__ import annotations

import builtins

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # see `block`

import ctypes
import gc
import importlib
import random
import resource
import signal
import site
import sys
from _socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET
from _socket import socket as Socket
from json import dumps, loads
from os import O_RDWR, _exit, close, dup2, execv, fork
from os import open as open_descriptor
from os.path import join
from random import getstate, setstate
from struct import pack
from typing import Any

from .state import NAMESPACE, become_state, remove

OWN = sys.modules["__main__"]  # user code gets another `__main__`; this one must stay alive
NO_RANDOM_ADDRESSES = 0x0040000  # of personality(2)
SET_PARENT_DEATH_SIGNAL, SET_DUMPABLE, SET_NO_NEW_PRIVILEGES = 1, 4, 38  # of prctl(2)
NO_SET_UID, NO_DEVICES, NO_EXECUTION = 2, 4, 8  # of mount(2)
SET_FILTER, NEW_LISTENER = 1, 8  # of seccomp(2)

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.strerror.restype = ctypes.c_char_p


def call(name: str, *arguments: Any) -> int:
    """A function of the C library. Raises OSError."""
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(getattr(libc, name)(*passed))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {libc.strerror(error).decode()}")
    return result


def prepare(settings: dict[str, Any], control: Socket) -> None:
    """Mount the scratch file system, import, set limits, filter system calls; then tell the controller.

    Raises OSError if the machine refuses something.
    """
    if settings["filters"]:
        # Of what can be limited of a tmpfs, bubblewrap offers the size alone. Its directory cannot be listed (it lacks
        # the right to read), so the names in it are secrets.
        options = f"size={settings['scratch_bytes']},nr_inodes={settings['scratch_files']},mode=0311"
        flags = NO_SET_UID | NO_DEVICES | NO_EXECUTION
        call("mount", b"tmpfs", settings["scratch"].encode(), b"tmpfs", flags, options.encode())
        version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
        call("capset", version_3, (ctypes.c_uint32 * 6)())
        call("prctl", SET_DUMPABLE, 0, 0, 0, 0)  # a crash leaves no core with a handler outside
    else:
        call("prctl", SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    sys.path[:] = [place for place in sys.path if place != settings["program"]] + settings["packages"]
    missing = [name for name in settings["preload"] if not imported(name)]
    site.setquit()
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    sys.modules["__main__"] = NAMESPACE
    null = open_descriptor("/dev/null", O_RDWR)
    for standard in (0, 1, 2):
        dup2(null, standard)
    close(null)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for name, value in settings["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    gc.collect()
    gc.freeze()  # a child's collector would touch, and so copy, all these pages
    told = dumps({"missing": missing}).encode()
    if not settings["filters"]:
        control.send(told)
        return
    call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    first, second = (bytes.fromhex(one) for one in settings["filters"])
    listener = install(settings["seccomp"], first, NEW_LISTENER)
    control.sendmsg([told], [(SOL_SOCKET, SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))])
    close(listener)
    install(settings["seccomp"], second, 0)


def install(seccomp: int, code: bytes, flags: int) -> int:
    """Install a filter of system calls. `seccomp` is the number of the call that does; its result is returned."""
    program = ctypes.create_string_buffer(code, len(code))
    return call("syscall", seccomp, SET_FILTER, flags, pack("@HP", len(code) // 8, ctypes.addressof(program)))


def imported(name: str) -> bool:
    """Import a module. Returns whether it is there."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def serve(control: Socket, settings: dict[str, Any]) -> None:
    """Answer messages for ever: as the zygote and, in every child, as a state."""
    while True:
        command, ancillary, _, _ = control.recvmsg(256, CMSG_LEN(4))
        if command == b"F" and ancillary:
            descriptor = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            drawn = getstate()
            try:
                child = fork()
            except OSError:
                child = -1  # no memory, or no more processes; the controller sees the descriptor closed
            if child:
                close(descriptor)
                continue
            setstate(drawn)  # Python gives every child other random numbers
            control.close()
            control = Socket(AF_UNIX, SOCK_SEQPACKET, 0, descriptor)
            become_state(control, settings)
        elif command[:1] == b"R":
            try:
                remove(join(settings["scratch"], command[1:].decode()))
            except OSError:
                continue
        else:
            _exit(0)


def main() -> None:
    """Start again with addresses that are the same in every sandbox; then set up and serve."""
    if len(sys.argv) == 2:
        libc.personality(ctypes.c_ulong(NO_RANDOM_ADDRESSES))  # without it, `id` and some orders of sets differ
        execv(sys.executable, [*sys.orig_argv, "again"])
    control = Socket(AF_UNIX, SOCK_SEQPACKET, 0, int(sys.argv[1]))
    control.send(b"H")
    settings = loads(control.recv(1 << 20))
    try:
        prepare(settings, control)
    except Exception as error:
        control.send(dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        _exit(1)
    serve(control, settings)


if __name__ == "__main__":
    main()

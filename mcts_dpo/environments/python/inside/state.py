"""A state: the process that has run the blocks of a path. Its children are forked from it and continue the path.

What lives along a path: names, modules, random generators, and the regular files of the scratch directory. Each process
has a directory of its own under a random name; files are read into memory at the end of a block and written again by
each child. So siblings never share a file. Files left open are closed at the end of a block.
"""

from __future__ import annotations

import builtins

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # see `block`

import sys
import tempfile
from _io import _BufferedIOBase, _IOBase, _TextIOBase
from _socket import socket as Socket
from gc import get_objects
from os import O_RDWR, chdir, close, dup2, environ, listdir, makedirs, mkdir, rename, rmdir, scandir, unlink, walk
from os import open as open_descriptor
from os.path import dirname, getsize, isfile, islink, join, relpath
from resource import RLIMIT_CPU, setrlimit
from select import POLLNVAL, poll
from signal import ITIMER_REAL, SIG_BLOCK, SIG_SETMASK, pthread_sigmask, setitimer, valid_signals
from sys import setprofile, settrace
from types import ModuleType
from typing import Any

from .block import Output, packed_reply, run_block

NAMESPACE = ModuleType("__main__")
"""What the blocks of the path have defined."""
FILES: dict[str, bytes] = {}
"""The path's files, by their place in the scratch directory."""
MOST_FILES = 256
"""Files that a path keeps."""
BLOCKS: list[str] = []
"""Names of the path's blocks."""


def become_state(control: Socket, settings: dict[str, Any]) -> None:
    """What a new child does: read the name of its directory and the code of its block, run it, send the reply."""
    control.send(b"H")
    name, _, code = control.recv(settings["message_bytes"]).partition(b"\n")
    home = join(settings["scratch"], name.decode())
    try:
        write_files(home)
    except OSError:
        # Another path has filled the file system. A block that uses no file does not notice.
        if FILES:
            control.send(packed_reply("", False, "OSError: there is no room for the path's files"))
            return
        home = "/"
    chdir(home)
    environ["TMPDIR"] = environ["HOME"] = home
    tempfile.tempdir = None
    setrlimit(RLIMIT_CPU, (settings["cpu_limit"], settings["cpu_limit"]))
    output = Output(settings["output_chars"], settings["print_chars"])
    sys.stdout, sys.stderr = output, Output(0, settings["print_chars"])
    BLOCKS.append(f"<block {len(BLOCKS) + 1}>")
    setitimer(ITIMER_REAL, settings["alarm"])
    pthread_sigmask(SIG_SETMASK, ())
    error = run_block(code.decode("utf-8", "replace"), BLOCKS[-1], NAMESPACE.__dict__, output)
    pthread_sigmask(SIG_BLOCK, valid_signals())
    setitimer(ITIMER_REAL, 0)
    settrace(None)
    setprofile(None)
    close_files(control.fileno(), settings["rlimits"]["RLIMIT_NOFILE"])
    chdir("/")
    kept = read_files(home, settings["rlimits"]["RLIMIT_FSIZE"]) if home != "/" else None
    control.send(packed_reply(output.text(), output.cut, error or kept))


def close_files(control: int, most: int) -> None:
    """Close all descriptors below `most` but the standard ones and `control`.

    Children of one state would share the place in an open file, and could talk through a pipe.
    """
    if not open_descriptors(control, most):
        return
    opened = [one for one in get_objects() if issubclass(type(one), _IOBase) and type(one) is not Output]
    for layer in (_TextIOBase, _BufferedIOBase, _IOBase):  # from the top, so that each writes out what it holds
        for one in opened:
            if issubclass(type(one), layer):
                try:
                    one.close()
                except BaseException:
                    continue
    null = open_descriptor("/dev/null", O_RDWR)
    for number in open_descriptors(control, most):
        if number != null:
            dup2(null, number)  # not closed: an object may still hold the number, and close it later
    close(null)


def open_descriptors(control: int, most: int) -> list[int]:
    """The open descriptors below `most`, without the standard ones and `control`. There is no /proc to ask."""
    poller = poll()
    for number in range(3, most):
        poller.register(number, 0)
    closed = {number for number, event in poller.poll(0) if event & POLLNVAL}
    return [number for number in range(3, most) if number not in closed and number != control]


def read_files(home: str, most: int) -> str | None:
    """Read the regular files below `home` into FILES. Returns the error if they have more than `most` bytes."""
    FILES.clear()
    if not listdir(home):
        return None
    left = most
    for folder, _, names in walk(home):
        for path in (join(folder, name) for name in names):
            if islink(path) or not isfile(path):
                continue
            left -= getsize(path)
            if left < 0 or len(FILES) == MOST_FILES:
                FILES.clear()
                return f"OSError: more than {MOST_FILES} files or {most} bytes of files; none is kept"
            with open(path, "rb") as file:
                FILES[relpath(path, home)] = file.read()
    return None


def write_files(home: str) -> None:
    """Make the directory `home` with the path's files."""
    mkdir(home, 0o700)
    for path, content in FILES.items():
        makedirs(dirname(join(home, path)), exist_ok=True)
        with open(join(home, path), "wb") as file:
            file.write(content)


def remove(home: str) -> None:
    """Remove a directory. Nested ones are moved next to it first, so that none is too deep to reach."""
    count, waiting = 0, [home]
    while waiting:
        folder = waiting.pop()
        with scandir(folder) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    count += 1
                    rename(entry.path, f"{home}.{count}")
                    waiting.append(f"{home}.{count}")
                else:
                    unlink(entry.path)
        rmdir(folder)

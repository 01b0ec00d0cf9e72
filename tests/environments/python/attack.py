"""Runs the hostile programs, watched from outside: a file, two sockets, a process, an environment variable, a sibling.

`python -m benchmarks.acting_sandbox` measures with it, the tests judge by it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mcts_dpo.environments.python import Interpreter, PythonLimits, Result
from tests.conftest import ROOT
from tests.environments.python.hostile import PROGRAMS, filled

THREADS = 8
LIMITS = PythonLimits(
    cpu_seconds=0.5,
    wall_seconds=3.0,
    memory_mb=384,
    file_mb=2,
    scratch_mb=16,
    live=16,
    concurrent=THREADS,
    preload=("math",),
)
SECRET = "the-secret-of-the-canary"
VARIABLE = "SECRET_VARIABLE"


@dataclass(frozen=True)
class Attack:
    """What came of one program.

    result:  of the program. seconds: that it took.
    after:   what the next block on its path came to: "41 + 1".
    honest:  what another path came to: "x + 22" after "x = 20".
    """

    result: Result
    seconds: float
    after: Result
    honest: Result

    def escaped(self) -> bool:
        """Whether it did, or saw, what it must not."""
        return any(sign in f"{self.result} {self.after}" for sign in ("ESCAPED", SECRET))


@dataclass
class Watch:
    """What lies outside. `damage` says what has happened to it."""

    folder: Path
    port: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    local: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    bystander: subprocess.Popen[bytes] = field(
        default_factory=lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    )

    def places(self) -> Mapping[str, object]:
        """The words of the programs, and what they stand for."""
        name = f"mcts-dpo-{os.getpid()}"
        self.local.bind(f"\0{name}")
        self.local.listen()
        (self.folder / "canary-secret").write_text(SECRET)
        os.environ[VARIABLE] = SECRET
        return {
            "PORT": self.port.getsockname()[1],
            "SOCKET": name,
            "PID": self.bystander.pid,
            "SECRET": self.folder / "canary-secret",
            "REPOSITORY": ROOT,
            "VARIABLE": VARIABLE,
        }

    def damage(self) -> list[str]:
        """Call once, at the end."""
        found = [] if self.bystander.poll() is None else ["a process outside has ended"]
        if (self.folder / "canary-secret").read_text() != SECRET:
            found.append("a file outside has changed")
        for one in (self.port, self.local):
            one.setblocking(False)
            try:
                one.accept()
                found.append("a socket outside was reached")
            except BlockingIOError:
                pass
            one.close()
        del os.environ[VARIABLE]
        self.bystander.kill()
        self.bystander.wait()
        return found


def attack_all(folder: Path) -> tuple[dict[str, Attack], list[str]]:
    """Run every program, eight at a time. Returns what came of each, by name, and all damage.

    folder: an empty one.
    """
    before = below()
    watch = Watch(folder)
    places = watch.places()
    with Interpreter(LIMITS, "bubblewrap") as interpreter:

        def attack(named: tuple[str, str]) -> tuple[str, Attack]:
            title, code = named[0], filled(named[1], places)
            interpreter.run(["x = 20", f"canary = '{SECRET}'\nopen('canary-secret', 'w').write(canary)"])
            began = time.monotonic()
            result = interpreter.run(["x = 20", code])
            seconds = time.monotonic() - began
            after = interpreter.run(["x = 20", code, "41 + 1"])
            return title, Attack(result, seconds, after, interpreter.run(["x = 20", f"# {title}\nx + 22"]))

        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(pool.map(attack, PROGRAMS.items()))
    damage = watch.damage()
    left = below() - before
    psutil.wait_procs(left, timeout=20)
    damage += [f"{one} is left running" for one in below() - before]
    return found, damage


def below() -> set[psutil.Process]:
    """All processes below this one."""
    return set(psutil.Process().children(recursive=True))

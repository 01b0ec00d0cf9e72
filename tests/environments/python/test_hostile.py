"""Hostile programs: none gets out of the sandbox, none hangs it, and the next honest path is run as if nothing was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mcts_dpo.environments.python import Interpreter, PythonLimits
from tests.conftest import ROOT
from tests.environments.python.hostile import PROGRAMS, filled
from tests.environments.python.support import needs_bubblewrap

LIMITS = PythonLimits(
    cpu_seconds=0.5,
    wall_seconds=3.0,
    memory_mb=384,
    file_mb=2,
    scratch_mb=16,
    live=16,
    concurrent=4,
    preload=("math",),
)


@needs_bubblewrap
def test_none_gets_out_and_none_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(PROGRAMS) >= 40
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    monkeypatch.setenv("SECRET_VARIABLE", "the secret")
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    name = f"mcts-dpo-{os.getpid()}"
    listener, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    unix.bind(f"\0{name}")
    unix.listen()
    for one in (listener, unix):
        one.setblocking(False)
    places = {
        "PORT": listener.getsockname()[1],
        "SOCKET": name,
        "PID": bystander.pid,
        "SECRET": secret,
        "REPOSITORY": ROOT,
        "VARIABLE": "SECRET_VARIABLE",
    }
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    escaped: dict[str, str] = {}
    wrong: list[str] = []

    with Interpreter(LIMITS, "bubblewrap") as interpreter:

        def attack(named: tuple[str, str]) -> None:
            title, code = named
            found = interpreter.run(["x = 20", filled(code, places)])
            if "ESCAPED" in found.output or "the secret" in found.output:
                escaped[title] = found.output
            honest = interpreter.run(["x = 20", f"x + {hash(title) % 1000}"])
            if honest.output != str(20 + hash(title) % 1000):
                wrong.append(f"after {title}: {honest}")

        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(attack, PROGRAMS.items()))
        assert time.monotonic() - began < 600, "each ends at its limit"
    assert escaped == {}
    assert wrong == []
    assert bystander.poll() is None, "a process outside lives"
    assert secret.read_text() == "the secret"
    for one in (listener, unix):
        with pytest.raises(BlockingIOError):
            one.accept()
        one.close()
    bystander.kill()
    bystander.wait()
    deadline = time.monotonic() + 20
    while {one.pid for one in psutil.Process().children(recursive=True)} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {one.pid for one in psutil.Process().children(recursive=True)} <= before, "nothing is left running"

"""States along paths: a child sees what its ancestors defined, siblings do not see each other, nothing is left."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.environments import Turn, environment_of
from mcts_dpo.environments.python import Interpreter, PythonLimits, PythonSettings, Result, shown_result
from tests.conftest import ROOT
from tests.environments.python.support import needs_bubblewrap

SMALL = PythonLimits(cpu_seconds=1, wall_seconds=4, memory_mb=512, output_chars=200, live=12, concurrent=4, preload=())
KINDS = [pytest.param("bubblewrap", marks=needs_bubblewrap), "none"]


def processes() -> set[int]:
    """All processes below this one."""
    return {one.pid for one in psutil.Process().children(recursive=True)}


@pytest.fixture(params=KINDS)
def interpreter(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    before = processes()
    with Interpreter(SMALL, request.param) as made:
        yield made
    deadline = time.monotonic() + 20
    while (left := processes() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "nothing is left running"


def test_a_path_is_a_notebook(interpreter: Interpreter) -> None:
    run = interpreter.run
    assert run(["x = 3", "x + 1"]) == Result("4", None, False)
    assert run(["x = 3", "print(x * 2)\nNone"]) == Result("6\n", None, False)
    assert run(["x = 3", "print(x)\nx"]).output == "3\n3"
    assert run(["x = 3", "x = 4", "x"]).output == "4"
    assert run(["x = 3", "y"]).error == "NameError: name 'y' is not defined (line 1)"
    assert run(["x = 1\n1 / 0", "x"]).output == "1", "what was defined before an error stays"
    assert run(["def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)", "f(15)"]).output == "610"
    assert run(["x ="]).error == "SyntaxError: invalid syntax (line 1)"
    assert run([""]) == Result("", None, False)


def test_limits_end_a_block_and_change_nothing(interpreter: Interpreter) -> None:
    run = interpreter.run
    # On a machine so busy that its wall time ends first, the other limit ends it.
    assert re.fullmatch(r"TimeoutError: more than (1 CPU|4) seconds", str(run(["x = 1", "while True: pass"]).error))
    assert run(["x = 1", "while True: pass", "x"]).output == "1"
    assert "TimeoutError: more than 4 seconds" in str(run(["import time\ntime.sleep(60)"]).error)
    assert "MemoryError" in str(run(["x = bytearray(10**10)"]).error)
    endless = run(["while True: print('spam')"])
    assert endless.cut
    assert len(endless.output) == 200
    assert endless.error is not None
    assert run(["import os\nos._exit(3)"]).error == "RuntimeError: the process ended"


def test_paths_in_any_order_are_what_each_is_alone(interpreter: Interpreter) -> None:
    """Random trees of paths, more of them than states may live, against one process for each path."""
    rng = random.Random(0)
    lines = ["x += [1]", "x *= 2", "x = x[::-1] + [len(x)]", "import random; x.append(random.randrange(100))", "x"]
    paths = [[rng.choice(lines) for _ in range(rng.randint(1, 5))] for _ in range(30)]
    asked = [["x = [0]", *path[:end], "x"] for path in paths for end in range(len(path) + 1)]
    rng.shuffle(asked)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: interpreter.run(path).output, asked))
    for path, output in zip(asked, found, strict=True):
        names: dict[str, object] = {}
        random.seed(0)
        for block in path[:-1]:
            exec(block, names)
        assert output == repr(names["x"]), path


def test_files_live_along_a_path(interpreter: Interpreter) -> None:
    run = interpreter.run
    write = "open('note', 'w').write('hello')"
    assert run([write, "open('note').read()"]).output == "'hello'"
    assert run([write, "open('note', 'a').write('!')", "open('note').read()"]).output == "'hello!'"
    assert run([write, "open('note').read()"]).output == "'hello'", "siblings have files of their own"
    assert "FileNotFoundError" in str(run(["open('note').read()"]).error)


def test_a_thousand_replies_leak_nothing(interpreter: Interpreter) -> None:
    def ask(number: int) -> None:
        assert interpreter.run([f"x = {number % 7}", f"x + {number}"]).output == str(number % 7 + number)

    def held() -> tuple[int, int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(processes()), threading.active_count()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(100)))
        before = held()
        list(pool.map(ask, range(100, 1100)))
        after = held()
    assert [b - a for a, b in zip(before, after, strict=True)] <= [8, 4, 0]


@needs_bubblewrap
def test_a_killed_controller_leaves_no_process(tmp_path: Path) -> None:
    program = tmp_path / "controller.py"
    program.write_text(
        "import time\n"
        "from mcts_dpo.environments.python import Interpreter, PythonLimits\n"
        "made = Interpreter(PythonLimits(preload=()), 'bubblewrap')\n"
        "made.run(['x = 1', 'x'])\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    controller = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True
    )
    assert controller.stdout is not None
    assert controller.stdout.readline() == "ready\n"
    below = psutil.Process(controller.pid).children(recursive=True)
    assert len(below) >= 3
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []


def test_a_machine_without_bubblewrap_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"'bubblewrap' is not installed .*`sandbox: none` runs code without"):
        Interpreter(SMALL, "bubblewrap")


@needs_bubblewrap
def test_limits_that_leave_no_room_are_refused() -> None:
    with pytest.raises(InputError, match=r"memory_mb: 64 is too small: .* \(accepted: an integer ≥ \d+\)"):
        Interpreter(SMALL.model_copy(update={"memory_mb": 64, "preload": ("sympy",)}), "bubblewrap")
    with pytest.raises(InputError, match=r"concurrent: 8 is out of range"):
        Interpreter(SMALL.model_copy(update={"concurrent": 8}), "bubblewrap")


def test_the_environment_replies_to_blocks() -> None:
    environment = environment_of(PythonSettings(sandbox="none", limits=SMALL))
    assert environment is not None
    problem = Problem("1", "?", "42")

    def reply(*steps: str) -> str | None:
        found = environment.reply(problem, [Turn(step) for step in steps])
        return None if found is None else found.text

    try:
        assert reply("I think.\n") is None
        first = "Let me see.\n```python\nx = 6\nprint(x)\n```\n"
        assert reply(first) == "```output\n6\n```\n"
        assert reply(first, "Now.\n", "```python\nx * 7\n```") == "\n```output\n42\n```\n"
        assert reply("```python\n1 / 0\n```\n") == "```output\nZeroDivisionError: division by zero (line 1)\n```\n"
        assert environment.unfinished("```python\nx = 6\n")
        assert not environment.unfinished(first)
    finally:
        environment.close()
    assert shown_result(Result("abc", "E: x", True)) == "```output\nabc\n… (the output was cut)\nE: x\n```\n"

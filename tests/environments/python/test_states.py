"""States that are dropped, die, or refuse to fork; sandboxes that end; machines that forbid them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from mcts_dpo.environments.python import Interpreter, PythonLimits, Result
from mcts_dpo.environments.python.interpreter import path_keys
from tests.conftest import ROOT
from tests.environments.python.support import needs_bubblewrap

pytestmark = needs_bubblewrap
LIMITS = PythonLimits(cpu_seconds=1, wall_seconds=4, memory_mb=512, file_mb=1, live=4, concurrent=2, preload=())
NEW_EACH_TIME = "import os, time\nborn = time.time_ns()\nborn"
"""Its value tells whether it was run again."""


@pytest.fixture
def interpreter() -> Iterator[Interpreter]:
    with Interpreter(LIMITS, "bubblewrap") as made:
        yield made


def inside() -> list[psutil.Process]:
    """The processes of the sandbox, the first one first."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "inside.zygote" in one.cmdline() and one.name() != "bwrap":
                found.append(one)
    return found


def end_sandbox() -> None:
    """End all processes of the sandbox, as the kernel does when memory runs out."""
    for one in inside():
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def test_equal_paths_share_a_state(interpreter: Interpreter) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda number: interpreter.run([NEW_EACH_TIME, f"born, {number}"]).output, range(8)))
    assert len({output.split(",")[0] for output in found}) == 1


def test_a_dropped_state_is_made_again(interpreter: Interpreter) -> None:
    first = interpreter.run([NEW_EACH_TIME])
    assert interpreter.run([NEW_EACH_TIME]) == first
    for number in range(LIMITS.live):
        interpreter.run([str(number)])
    assert len(inside()) <= LIMITS.live + 1
    again = interpreter.run([NEW_EACH_TIME])
    assert again != first
    assert interpreter.run([NEW_EACH_TIME, "born"]) == again


def test_states_that_take_too_much_memory_together_are_dropped() -> None:
    limits = LIMITS.model_copy(update={"live": 16, "total_mb": 100})
    with Interpreter(limits, "bubblewrap") as interpreter:
        for number in range(8):
            assert interpreter.run([f"x = bytes({40 + number} << 20)", "len(x) >> 20"]).output == str(40 + number)
        assert sum(one.memory_info().rss for one in inside()) < 400 << 20


def test_the_sandbox_is_started_again_when_it_ends(interpreter: Interpreter) -> None:
    first = interpreter.run([NEW_EACH_TIME])
    end_sandbox()
    again = interpreter.run([NEW_EACH_TIME, "born"])
    assert again.error is None
    assert again != first


def test_calls_survive_the_end_of_their_sandbox(interpreter: Interpreter) -> None:
    slow = "import time\ntime.sleep(1)\n'done'"
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(interpreter.run, [f"x = {number}", slow]) for number in range(2)]
        time.sleep(0.5)
        end_sandbox()
        assert [one.result().output for one in waiting] == ["'done'"] * 2


def test_a_failed_block_is_not_run_again(interpreter: Interpreter) -> None:
    """A replay treats it as before: the path continues from the state before it."""
    bad = "x = 2\nimport os\nos._exit(1)"
    path = ["x = 1", bad]
    failed = interpreter.run(path)
    assert failed == Result("", "RuntimeError: the process ended", False)
    assert interpreter.run([*path, "x"]).output == "1"
    for number in range(LIMITS.live):
        interpreter.run([str(number)])
    assert interpreter.run([*path, "x"]).output == "1"
    assert interpreter.run(path) == failed


def test_a_state_that_cannot_be_forked_counts_as_failed_and_keeps_its_reply(interpreter: Interpreter) -> None:
    stubborn = "x = 2\nimport os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(1000))\nx"
    assert interpreter.run(["x = 1", stubborn]).output == "2"
    assert interpreter.run(["x = 1", stubborn, "x"]).output == "1"
    assert interpreter.run(["x = 1", stubborn]).output == "2"
    deadline = time.monotonic() + 20
    while len(inside()) > LIMITS.live + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(inside()) <= LIMITS.live + 1, "its unborn child is not left behind"


def test_files_left_open_are_closed_and_kept(interpreter: Interpreter) -> None:
    write = "f = open('note', 'w')\nf.write('hello')"
    assert interpreter.run([write, "f.closed, open('note').read()"]).output == "(True, 'hello')"
    pipe = "import os\nr, w = os.pipe()\nos.write(w, b'x')"
    assert interpreter.run([pipe, "os.read(r, 1)"]).output == "b''", "siblings do not share a pipe"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('x', 'wb').truncate(1 << 20)\nopen('y', 'wb').truncate(1 << 20)", "1048576 bytes of files"),
        ("for n in range(300): open(str(n), 'w').close()", "more than 256 files"),
    ],
)
def test_a_path_keeps_few_files(interpreter: Interpreter, code: str, error: str) -> None:
    assert error in str(interpreter.run([code]).error)
    assert interpreter.run([code, "import os\nos.listdir()"]).output == "[]"


def test_a_block_that_is_too_long_is_not_run(interpreter: Interpreter) -> None:
    found = interpreter.run(["x = 1", "x = 2\n" + "#" * LIMITS.block_chars])
    assert found.error == "ValueError: the block has more than 20000 characters"
    with pytest.raises(ValueError, match="at least one block"):
        interpreter.run([])


def test_a_closed_interpreter_fails_the_calls_under_way() -> None:
    interpreter = Interpreter(LIMITS, "bubblewrap")
    failures: list[BaseException] = []

    def call() -> None:
        try:
            interpreter.run(["import time\ntime.sleep(1000)"])
        except RuntimeError as error:
            failures.append(error)

    waiting = threading.Thread(target=call)
    waiting.start()
    time.sleep(0.3)
    interpreter.close()
    interpreter.close()
    waiting.join(20)
    assert [str(one) for one in failures] == ["the python environment is closed"]
    with pytest.raises(RuntimeError, match="is closed"):
        interpreter.run(["1"])


def test_modules_that_are_not_installed_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with Interpreter(LIMITS.model_copy(update={"preload": ("math", "no_such_module")}), "bubblewrap") as interpreter:
        assert interpreter.run(["import sys\n'math' in sys.modules"]).output == "True"
    assert caplog.messages == ["python environment: preload: 'no_such_module' is not installed, and is skipped"]


def test_bytes_repeat_in_another_sandbox() -> None:
    code = "import random\nrandom.random(), id(random), list({'a', 'b', 'c', None}), object()"
    found = []
    for _ in range(2):
        with Interpreter(LIMITS, "bubblewrap") as interpreter:
            found.append(interpreter.run(["x = [object() for _ in range(1000)]", code]))
    assert found[0] == found[1]


def test_a_machine_that_forbids_user_namespaces_is_refused_in_one_line() -> None:
    program = (
        "from mcts_dpo.common.errors import InputError\nfrom mcts_dpo.environments.python import *\n"
        "try:\n    Interpreter(PythonLimits(preload=()), 'bubblewrap')\n"
        "except InputError as error:\n    print(error)"
    )
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if "sys/user" in done.stderr:
        pytest.skip("this machine does not let a test forbid them")
    (line,) = done.stdout.splitlines()
    assert line.startswith("sandbox: 'bubblewrap' does not work on this machine (bwrap: ")
    assert line.endswith("; `sandbox: none` runs code without any protection")


def test_keys_tell_paths_apart() -> None:
    assert path_keys(["a", "b"])[0] == path_keys(["a"])[0]
    paths = [["ab"], ["a", "b"], ["a", "b", ""], ["", "ab"], ["a"], ["\ud800"]]
    assert len({path_keys(path)[-1] for path in paths}) == len(paths)

"""Control-C in real processes: the first is never lost, whatever drops it; the second ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

START = """
import os, signal, sys, threading, time, typer
from mcts_dpo.common.console import err_console, live_progress
from mcts_dpo.cli.exits import run_app
app = typer.Typer()
"""
IN_DESTRUCTOR = """
class Library:
    def __del__(self):
        print('ready', flush=True)
        time.sleep(20)   # the interruption is dropped here

@app.command()
def work() -> None:
    Library()
    while True:
        time.sleep(0.05)
"""
IN_EVERY_DESTRUCTOR = """
class Library:
    def __del__(self):
        time.sleep(0.2)

@app.command()
def work() -> None:
    for turn in range(100):
        Library()
        if turn == 0:
            print('ready', flush=True)
    time.sleep(600)
"""
EXCEPTED = """
@app.command()
def work() -> None:
    with live_progress(err_console) as progress:
        print('ready', flush=True)
        for done in range(1000):
            try:
                time.sleep(0.05)
            except BaseException:
                pass
            progress('work', done, 1000)
"""
STUBBORN = """
@app.command()
def work() -> None:
    print('ready', flush=True)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            print('dropped', flush=True)
"""
AT_THE_END = """
@app.command()
def work() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()   # the interpreter waits for it
    print('ready', flush=True)
    time.sleep(600)
"""


def started(code: str) -> subprocess.Popen[str]:
    """A real process that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{START}{code}run_app(app)"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("code", [IN_DESTRUCTOR, IN_EVERY_DESTRUCTOR, EXCEPTED], ids=["destructor", "many", "except"])
def test_one_signal_ends_the_command_in_order_whatever_drops_it(code: str) -> None:
    process = started(code)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 130, (out, err)
    assert err == "mcts-dpo: interrupted; finished shards and stages are kept, the same command continues\n"


@pytest.mark.parametrize("code", [STUBBORN, AT_THE_END], ids=["drops-all", "at-the-end"])
def test_a_second_signal_always_ends_the_process_and_says_so(code: str) -> None:
    process = started(code)
    process.send_signal(signal.SIGINT)
    if code is STUBBORN:
        assert process.stdout is not None
        assert process.stdout.readline() == "dropped\n"
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130
    assert err.endswith("mcts-dpo: interrupted again; ended at once\n")


def test_a_signal_to_a_forked_child_is_not_a_second_one_to_its_parent() -> None:
    code = """
@app.command()
def work() -> None:
    child = os.fork()
    if child == 0:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            os._exit(0)
    print('ready', flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGINT)
        os.waitpid(child, 0)
        time.sleep(0.5)
        raise
"""
    process = started(code)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130
    assert "again" not in err


def test_an_ignored_signal_stays_ignored_and_a_finished_command_leaves_no_trace() -> None:
    code = START + (
        "@app.command()\ndef work() -> None:\n    os.kill(os.getpid(), signal.SIGINT)\n    print('continued')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "try:\n    run_app(app)\nexcept SystemExit as end:\n    print(end.code)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "hook = sys.unraisablehook\n"
        "app = typer.Typer()\n@app.command()\ndef rest() -> None:\n"
        "    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler\n"
        "try:\n    run_app(app)\nexcept SystemExit as end:\n    print(end.code)\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert sys.unraisablehook is hook\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "continued\n0\n0\n"
    assert os.name == "posix"

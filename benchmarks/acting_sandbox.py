"""The interpreter of the environment `python`: how fast it replies, what it leaks, and whether a program gets out.

    python -m benchmarks.acting_sandbox --json FILE [--replies 1000] [--threads 4]

Paths of two blocks that share their first one; the second is trivial, and new each time. The hostile programs are those
of the tests (tests/environments/python/hostile.py).

Prints a Markdown table and writes the keys `replies_per_second` (bar 200 on two cores, with math and sympy loaded),
`replies_per_second_replayed` (the same where the first block's state was dropped each time), `start_seconds`,
`leaked_descriptors`, `leaked_processes`, `leaked_mb` (of the controller, over all replies but the first hundred),
`hostile_programs`, `escapes` (bar 0), `hangs` (bar 0: programs that took more than 2 s longer than their limit),
`seconds_over_limit` (the most that one took), and `cores`.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from mcts_dpo.common.files import write_json
from mcts_dpo.environments.python import Interpreter, PythonLimits
from tests.environments.python.attack import LIMITS, attack_all

BARS = {"replies_per_second": "≥ 200", "escapes": "0", "hangs": "0", "leaked_processes": "0"}
WARM = 100
"""Replies before anything is measured."""


def held() -> tuple[int, int, float]:
    """What this process holds: descriptors, processes, memory in MiB."""
    gc.collect()
    process = psutil.Process()
    return process.num_fds(), len(process.children(recursive=True)), process.memory_info().rss / 2**20


def pace(ask: Callable[[int], None], replies: int, threads: int) -> float:
    """Replies a second. ask: asks for the reply of this number, and checks it."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(ask, range(replies)))
        return replies / (time.perf_counter() - began)


def replying(replies: int, threads: int) -> dict[str, float]:
    """The pace of replies, and what is left of them."""
    limits = PythonLimits(live=64)
    began = time.perf_counter()
    with Interpreter(limits, "bubblewrap") as interpreter:
        found: dict[str, float] = {"start_seconds": time.perf_counter() - began}

        def forked(number: int) -> None:
            assert interpreter.run(["x = 1", f"x + {number}"]).output == str(1 + number)

        def replayed(number: int) -> None:
            assert interpreter.run([f"x = {number}", "x + 1"]).output == str(1 + number)

        # States up to their bound are no leak.
        pace(lambda number: forked(-1 - number), max(WARM, limits.live), threads)
        before = held()
        found["replies_per_second"] = pace(forked, replies, threads)
        after = held()
        found["replies_per_second_replayed"] = pace(replayed, max(1, replies // 4), threads)
    for name, first, last in zip(("descriptors", "processes", "mb"), before, after, strict=True):
        found[f"leaked_{name}"] = last - first
    return found


def attacked() -> dict[str, float]:
    """What the hostile programs came to."""
    with tempfile.TemporaryDirectory() as folder:
        found, damage = attack_all(Path(folder))
    over = [one.seconds - LIMITS.wall_seconds for one in found.values()]
    return {
        "hostile_programs": len(found),
        "escapes": sum(one.escaped() for one in found.values()) + len(damage),
        "hangs": sum(seconds > 2 for seconds in over),
        "seconds_over_limit": max(0.0, *over),
    }


def measure(replies: int = 1000, threads: int = 4) -> dict[str, Any]:
    """All keys of the benchmark."""
    return {"cores": len(os.sched_getaffinity(0)), **replying(replies, threads), **attacked()}


def table(found: dict[str, Any]) -> str:
    """Markdown: one row per key."""
    lines = ["| figure | value | bar |", "|---|---|---|"]
    for name, value in found.items():
        shown = f"{value:.2f}" if isinstance(value, float) else str(value)
        lines.append(f"| `{name}` | {shown} | {BARS.get(name, '')} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--replies", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=4, help="that ask at the same time")
    arguments = parser.parse_args()
    found = measure(arguments.replies, arguments.threads)
    print(table(found))
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()

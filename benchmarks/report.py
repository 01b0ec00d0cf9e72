"""How long a report with many trees takes to open in Chromium, and how large it is.

    python -m benchmarks.report RUN --json FILE [--trees 2000]

RUN: a finished run directory (`make demo` leaves runs/demo). Its tree files are copied until there are enough trees;
the page is written, and opened in a fresh headless browser again and again: seconds of the wall clock, as the page
itself counts them, from the navigation to the first tree drawn. Writes `trees`, `megabytes`, `seconds_to_write`,
`seconds_to_open` (of each opening).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import write_json
from mcts_dpo.report import load_run, write_html
from mcts_dpo.search import Forest
from tests.browser import opened


def enlarged(run: Path, to: Path, trees: int) -> int:
    """Copy a run with its tree files again and again. Returns how many trees there are."""
    shutil.copytree(run, to)
    files = sorted(to.glob("round-*/trees/*.parquet"))
    if not files:
        raise InputError(f"{run}: no trees (accepted: a finished run directory)")
    there = sum(len(Forest.load(file).trees) for file in files)
    total, copy = there, 0
    while total < trees:
        copy += 1
        for file in files:
            shutil.copy(file, file.with_name(f"shard-copy{copy}-{file.name}"))
        total += there
    return total


def measure(run: Path, trees: int, openings: int = 5) -> dict[str, Any]:
    """The figures, from a copy of the run that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "run"
        count = enlarged(run, place, trees)
        began = time.perf_counter()
        page_file = write_html(load_run(place)).resolve()
        written = time.perf_counter() - began
        seconds = []
        for _ in range(openings):
            with opened(page_file) as (page, complaints):
                page.wait_for_selector("#tree .node")
                seconds.append(page.evaluate("performance.now()") / 1000)
                if complaints:
                    raise RuntimeError(f"the page complains: {complaints[0]}")
        return {
            "trees": count,
            "megabytes": page_file.stat().st_size / 1e6,
            "seconds_to_write": written,
            "seconds_to_open": seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trees", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        found = measure(arguments.run, arguments.trees)
    except InputError as error:
        parser.exit(2, f"benchmarks.report: {error}\n")
    print(f"{found['trees']} trees, {found['megabytes']:.1f} MB, written in {found['seconds_to_write']:.1f} s")
    print("opened in " + ", ".join(f"{one:.2f}" for one in found["seconds_to_open"]) + " s")
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()

"""The attack benchmark's server part, in its small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_nothing_falls_to_a_short_attack(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    line = [sys.executable, "-m", "benchmarks.attack", "--quick", "--parts", "server", "--json", str(found)]
    subprocess.run(line, check=True, cwd=ROOT, timeout=1800, capture_output=True)
    figures = json.loads(found.read_text())
    assert figures["requests"] > 6
    assert figures["bystanders"] > 0
    wrong = ("failed_parts", "server_deaths", "bystander_errors", "server_errors", "unanswered")
    assert [figures[name] for name in wrong] == [[], 0, 0, 0, 0]
    # Seconds and memory are measured by the benchmark itself, on a machine that does nothing else.
    assert {"max_block_s", "leak_mib_per_1000", "stop_s"} <= figures.keys()


def test_an_unknown_part_is_named() -> None:
    line = [sys.executable, "-m", "benchmarks.attack", "--parts", "serve"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 2
    assert "--parts: serve (accepted:" in done.stderr

"""Everything is attacked: the server, models, journals and files, verdicts, the terminal; bounded in time and traffic.

    python -m benchmarks.attack [--json FILE] [--quick] [--seconds 120] [--parts server,models]

Each part is a module `benchmarks.attack_NAME` with its own figures, run in a process of its own; nothing leaves
loopback. A part that ends with an error, or does not end, counts in `failed_parts` (names), and the others continue.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcts_dpo.common.files import write_json

PARTS = tuple(sorted(path.stem.removeprefix("attack_") for path in Path(__file__).parent.glob("attack_*.py")))
QUICK = 20.0
"""Seconds of a part, with `--quick`."""


def part(name: str, seconds: float) -> dict[str, Any] | None:
    """The figures of one part that may take about so many seconds; None if it ended with an error, or not at all."""
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        found = Path(folder) / "figures.json"
        line = [sys.executable, "-m", f"benchmarks.attack_{name}", "--json", str(found), "--seconds", str(seconds)]
        try:
            subprocess.run(line, check=True, timeout=3 * seconds + 300, stdout=subprocess.DEVNULL)
        except subprocess.SubprocessError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return None
        figures: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        return figures


def attack(parts: list[str], seconds: float) -> dict[str, Any]:
    """The figures of all parts together."""
    results: dict[str, Any] = {"failed_parts": []}
    for name in parts:
        figures = part(name, seconds)
        if figures is None:
            results["failed_parts"].append(name)
        else:
            results |= figures
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:g} seconds for each part")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each part")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"--parts: {', '.join(unknown)} (accepted: {', '.join(PARTS)})")
    results = attack(parts, QUICK if options.quick else options.seconds)
    print(json.dumps(results, indent=2))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()

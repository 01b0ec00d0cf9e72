"""How large the package is: lines, classes, functions, modules at the top, files that poll an engine.

`python -m benchmarks.counts [REVISION …]` prints one JSON object per revision of this repository (default: HEAD).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def counts(revision: str) -> dict[str, Any]:
    """The counts of `mcts_dpo/` and the lines of `verifiers/` at a revision."""
    names = [name for name in _git("ls-tree", "-r", "--name-only", revision).split() if name.endswith(".py")]
    texts = {
        name: _git("show", f"{revision}:{name}") for name in names if name.split("/")[0] in ("mcts_dpo", "verifiers")
    }
    ours = {name: text for name, text in texts.items() if name.startswith("mcts_dpo/")}
    whole = "".join(ours.values())
    return {
        "revision": revision,
        "lines": whole.count("\n"),
        "files": len(ours),
        "classes": len(re.findall(r"^\s*class \w", whole, re.MULTILINE)),
        "functions": len(re.findall(r"^\s*(?:async )?def \w", whole, re.MULTILINE)),
        "modules_at_the_top": sum(name.count("/") == 1 and "/__" not in name for name in ours),
        "over_500_lines": sum(text.count("\n") > 500 for text in ours.values()),
        "lines_of_verifiers": sum(text.count("\n") for name, text in texts.items() if name.startswith("verifiers/")),
    }


if __name__ == "__main__":
    for revision in sys.argv[1:] or ["HEAD"]:
        print(json.dumps(counts(revision)))

# ruff: noqa: E501
"""Texts from models, data and file names that would drive a terminal: what of them reaches it?

    python -m benchmarks.attack_terminal [--json FILE] [--seconds 240]

The commands run on a pseudo-terminal, with texts that hold control sequences (clear the screen, set the window's title,
ask for the cursor's place, go back and overwrite, turn the direction of writing) and rich's markup.

Figures: `terminal_commands` (run), `raw_controls` (control characters of those texts that came out as such),
`markup_lost` (texts in square brackets that were taken for markup), `terminal_tracebacks`, `terminal_hangs`.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mcts_dpo.common.files import write_json
from mcts_dpo.data import Problem, save_problems
from mcts_dpo.search import Forest
from tests.engines.tiny import save_model
from tests.models.test_prompts import byte_level

ROOT = Path(__file__).parents[1]
LIMIT = 240.0  # a busy machine takes half a minute to import what a search needs
CONTROLS = (
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bc", "\x1b[6n", "\x1b[31;1m", "\x9b2J", "\x9d0;t\x9c", "\x07", "\x08\x08",
    "\x00", "\x7f", "\x0b", "\x0c", "\x0e", "\x85", "\x90q", "\u202e", "\u2066", "\x1b[?1049h", "\x1b[1A",
)  # fmt: skip
MARKUP = "Q1[a,b]Q2[/b]Q3[bold red]Q4[link=x]Q5"
RAW = re.compile("M\\d+:[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LOST = re.compile("Q1Q2|Q2Q3|Q3Q4|Q4Q5")
HOSTILE = "".join(f"M{place}:{control}" for place, control in enumerate(CONTROLS)) + MARKUP
FINE = HOSTILE.replace("\x00", "")
"""Without NUL, which neither arguments nor file names can hold."""


def run(arguments: list[str], folder: Path) -> tuple[str, bool]:
    """What `mcts-dpo` writes to a terminal, and whether it had to be killed."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "COLUMNS": "4000",
        "HF_HUB_OFFLINE": "1",
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "mcts_dpo", *arguments],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=folder, env=environment,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    said, until = b"", time.monotonic() + LIMIT
    while time.monotonic() < until:
        ended = child.poll() is not None
        try:
            part = os.read(ours, 1 << 16)
        except BlockingIOError:
            part = None
        except OSError:  # the other end is closed
            break
        said += part or b""
        if ended and not part:
            break
        if part is None:
            time.sleep(0.02)
    hung = child.poll() is None
    child.kill()
    child.wait()
    os.close(ours)
    return said.decode("utf-8", "replace"), hung


def hostile_forest(path: Path) -> None:
    """A tree whose question, steps, answers and notes are hostile."""
    forest = Forest({"search": {}, "prompt": {}}, "x")
    tree = forest.add_tree("one", (1, 2), HOSTILE)
    node = forest.trees[tree].root
    for depth in range(2):
        node = forest.add_child(node, (3, 4), (-0.1, -0.1), f"{HOSTILE}\n", 1 if depth else 0)
    forest.answers[node] = HOSTILE
    forest.trees[tree].status, forest.trees[tree].notes = "simulations", [HOSTILE]
    forest.save(path)


def commands(folder: Path) -> list[list[str]]:
    """Command lines over hostile files in `folder`."""
    hostile_forest(folder / "trees" / "shard-0000.parquet")
    model = str(save_model(folder / "model", tokenizer=byte_level(), max_position_embeddings=256))
    save_problems(
        folder / "problems.jsonl", [Problem(FINE, "a " * 900, "5"), Problem("fine", f"Why {HOSTILE}?", HOSTILE)]
    )
    (folder / "bad.jsonl").write_text(
        json.dumps({HOSTILE: HOSTILE}) + "\n" + json.dumps({"question": 5, FINE: 1}) + "\n"
    )
    (folder / "bad.yaml").write_text(json.dumps({"prompt": {FINE: HOSTILE}}))
    named = folder / FINE.replace("/", "_")[:80]
    named.mkdir()
    (named / "config.json").write_text(json.dumps({"model_type": HOSTILE}))
    small = ["search.simulations=1", "search.children=1", "search.max_tokens=8"]
    return [
        ["tree", "trees", "one"],
        ["tree", "trees"],
        ["tree", "trees", FINE],
        ["pairs", "trees", "--out", "data"],
        ["search", "-m", model, "-p", "problems.jsonl", "-o", "out", *small],
        ["search", "-m", model, "-p", "bad.jsonl", "-o", "out2", *small],
        ["search", "-m", model, "-p", "problems.jsonl", "-o", "out3", "-c", "bad.yaml"],
        ["search", "-m", str(named), "-p", "problems.jsonl", "-o", "out4"],
        ["search", "-m", model, "-p", "problems.jsonl", "-o", "out5", f"search.{FINE}=1"],
        ["eval", "-m", model, "-p", "problems.jsonl", "evaluation.max_tokens=8"],
        ["solve", f"Why {FINE}?", "-m", model, "--budget", "40"],
        ["report", str(named)],
        [FINE],
    ]


def attack(seconds: float = 240.0) -> dict[str, float]:
    """The commands one after the other, as long as there is time; see the module."""
    begun = time.monotonic()
    figures = dict.fromkeys(
        ("terminal_commands", "raw_controls", "markup_lost", "terminal_tracebacks", "terminal_hangs"), 0.0
    )
    with tempfile.TemporaryDirectory(prefix="attack-terminal-") as scratch:
        folder = Path(scratch)
        (folder / "trees").mkdir()
        for arguments in commands(folder):
            if time.monotonic() - begun > seconds:
                break
            said, hung = run(arguments, folder)
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
            found = {
                "raw_controls": len(RAW.findall(said)),
                "markup_lost": len(LOST.findall(plain.replace("\r\n", ""))),
                "terminal_tracebacks": int("Traceback (most" in plain),
                "terminal_hangs": int(hung),
            }
            figures["terminal_commands"] += 1
            bad = [f"{name} {value}" for name, value in found.items() if value]
            if bad:
                print(
                    f"{arguments[0][:12]!r} {arguments[1][:24]!r}: {', '.join(bad)}" if arguments[1:] else bad,
                    flush=True,
                )
            for name, value in found.items():
                figures[name] += value
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    options = parser.parse_args()
    figures = attack(options.seconds)
    print(json.dumps(figures, indent=2))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()

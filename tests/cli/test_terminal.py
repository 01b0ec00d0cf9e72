"""Text of models, data and files on the terminal: printed as it reads, and nothing in it acts on the terminal.

The commands are the real ones. The model is real and tiny; half of its vocabulary is markup and control sequences.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.terminal import raw_controls
from mcts_dpo.cli.app import main
from tests.engines.tiny import save_model
from verifiers.visible import visible, visible_json

CLEAR, TITLE, BELL, BACK, RIGHT_TO_LEFT, CSI = "\x1b[2J", "\x1b]0;owned\x07", "\x07", "\x08", "\u202e", "\x9b31m"
MARKUP = ["[a,b]", "[/b]", "[bold red]", "[/]", ":smile:", "[link=x]", "[[1]]", "\\[x]"]
CONTROLS = [CLEAR, TITLE, BELL, BACK, RIGHT_TO_LEFT, CSI, "\x00", "\x7f", "\r", "\x1bc"]
HOSTILE = "".join(MARKUP) + "".join(CONTROLS)
PLAIN = ("prompt.style=plain", "prompt.answer_style=last_number")
SEARCH = ("search.simulations=4", "search.children=3", "search.max_tokens=48", "search.expand=rollout", "search.seed=2")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pieces = ["<unk>", "<eos>", "\n", *MARKUP, *CONTROLS, "The answer is ", "7", ".", " so ", "Yes", "No"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    folder = tmp_path_factory.mktemp("hostile") / "policy [/b]"
    return save_model(folder, tokenizer=fast, max_position_embeddings=512, initializer_range=0.02)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [
        {"id": f"one{HOSTILE}", "question": f"What is 2? {HOSTILE}", "answer": "7"},
        {"id": "two", "question": "?", "answer": HOSTILE},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


Command = Callable[..., str]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `mcts-dpo` in this process; returns both streams. It must end with `code` and write nothing raw."""

    def call(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["mcts-dpo", *map(str, arguments)])
        capfd.readouterr()
        ended: object = 0
        try:
            main()
        except SystemExit as stop:
            ended = stop.code or 0
        written = "".join(capfd.readouterr())
        assert ended == code, written
        assert raw_controls(written, terminal=True) == 0, repr(written)
        return written

    return call


def watched(*arguments: object) -> str:
    """What a real command writes to a terminal that is its standard output and error."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mcts_dpo", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    written = b"".join(parts).decode(errors="surrogateescape")
    assert process.wait(timeout=300) == 0, written
    return written


def test_what_acts_on_a_terminal_is_spelled_and_the_rest_is_left() -> None:
    assert visible(f"{CLEAR}{BELL}{RIGHT_TO_LEFT}\ud800 é → 五 \u200d\n\t[b]") == (
        "\\x1b[2J\\x07\\u202e\\ud800 é → 五 \u200d\n\t[b]"
    )
    for code in (*range(0x3000), *range(0xD7F0, 0x10010), *range(0xDFFFF, 0xE0100)):
        text = chr(code)
        assert raw_controls(visible(text)) == 0
        assert visible(visible(text)) == visible(text)
    value = {"text": HOSTILE + "\ud800\U000e0041é"}
    spelled = visible_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert raw_controls(spelled) == 0
    assert json.loads(spelled) == value


def test_solve_prints_what_the_model_wrote(policy: Path, command: Command) -> None:
    question = f"What? {HOSTILE.replace(chr(0), '')}"
    line = ("solve", question, "-m", policy, "--budget", 600, *PLAIN, *SEARCH)
    solution = json.loads(command(*line, "--json"))
    printed = command(*line)
    assert f"Answer: {visible(str(solution['answer'] or '(none found)'))}" in printed
    assert visible(solution["solution"]) in printed
    assert sum(piece in solution["solution"] for piece in (*MARKUP, *CONTROLS)) > 4, "too little that is hostile"
    on_terminal = watched(*line)
    assert raw_controls(on_terminal, terminal=True) == 0, repr(on_terminal)
    assert all(visible(line) in on_terminal.replace("\r", "") for line in solution["solution"].split("\n"))


def test_trees_and_problems_are_shown_as_they_are(
    policy: Path, problems: Path, tmp_path: Path, command: Command
) -> None:
    out, asked = tmp_path / f"trees [/b]{BELL}", ("-m", policy, "-p", problems, *PLAIN)
    assert visible(str(out)) in command("search", *asked, "-o", out, *SEARCH)
    assert visible(f"one{HOSTILE}") in command("tree", out)
    drawn = command("tree", out, "two")
    assert visible(f"trees [/b]{BELL}") in drawn
    assert any(piece in drawn for piece in MARKUP)
    rows = json.loads(command("tree", out, "two", "--json"))
    assert any(piece in text for row in rows for text in row["text"] for piece in CONTROLS)
    told = command("problems", problems)
    assert visible(f"First: one{HOSTILE}\nWhat is 2? {HOSTILE}") in told
    assert "[/b]" in command("prompts", *asked)
    command("pairs", out, "-o", tmp_path / "pairs")
    command("eval", *asked, "evaluation.max_tokens=8")
    command("doctor", "-m", policy)


def test_errors_are_printed_as_they_are(policy: Path, tmp_path: Path, command: Command) -> None:
    words = f"no{HOSTILE.replace(chr(0), '')}"
    assert visible(words) in command("problems", tmp_path / words, code=2)
    assert "[/b]" in command("solve", "?", "-m", policy, f"search.{words}=1", code=2)
    assert "[/b]" in command("recipes", words, code=2)
    assert "[/b]" in command(words, code=2)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"id": words, "question": 5}) + "\n")
    command("problems", broken, code=2)
    for line in (["mcts_dpo", "--debug", "problems", str(tmp_path / words)], ["verifiers", f"\\text{{{words}}}", "5"]):
        done = subprocess.run([sys.executable, "-m", *line], capture_output=True, check=False, timeout=300)
        written = (done.stdout + done.stderr).decode()
        assert done.returncode in (1, 2)
        assert raw_controls(written) == 0, repr(written)
        assert "[/b]" in written or "control characters" in written


def test_log_lines_and_their_tracebacks_are_spelled() -> None:
    code = (
        "import logging, sys, typer\n"
        "from mcts_dpo.cli.exits import run_app\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def talk() -> None:\n"
        f"    hostile = {HOSTILE!r}\n"
        "    logging.getLogger('mcts_dpo.x').warning('one %s', hostile)\n"
        "    try:\n"
        "        raise ValueError(hostile)\n"
        "    except ValueError:\n"
        "        logging.getLogger('uvicorn.error').exception('two')\n"
        "    raise RuntimeError(hostile)\n"
        "run_app(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=300)
    written = done.stderr.decode()
    assert done.returncode == 1
    assert raw_controls(written) == 0
    assert visible(f"one {HOSTILE}") in written
    assert written.count(visible(HOSTILE)) == 3

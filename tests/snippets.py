"""The documents' snippets for harnesses, run as printed in an environment: by the tests, and in fresh ones by hand.

    python -m tests.snippets            a fresh environment for each extra, which gets nothing else (minutes, downloads)
    python -m tests.snippets inspect    only this one

Names of models are replaced by a tiny policy's folder; hub data sets lie in the working directory under their names.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from mcts_dpo.data import Problem
from tests.conftest import CHAT, ROOT
from tests.documents import PAGES, blocks, commands, write_named

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "INSPECT_DISPLAY": "plain"}


def shell(line: str, bin_: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one line in `folder` with the programs of `bin_` first."""
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        line,
        shell=True,
        cwd=folder,
        env=clean | OFFLINE | {"PATH": path, "HF_DATASETS_CACHE": str(folder / ".datasets")} | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def printed_lines(*starts: str) -> list[str]:
    """The commands of the README and the docs that start with one of these, each once."""
    lines = dict.fromkeys(line for page in PAGES for _, body in blocks(page, "sh") for line in commands(body))
    return [line for line in lines if line.startswith(starts)]


def succeeded(line: str, bin_: Path, folder: Path) -> str:
    """Run a line that must succeed. Returns what it printed."""
    done = shell(line, bin_, folder)
    if done.returncode:
        raise AssertionError(f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done.stdout + done.stderr


def inspect_snippet(bin_: Path, folder: Path, model: Path, problems: Sequence[Problem]) -> None:
    """`inspect eval` in both modes; Inspect's own model is the tiny policy under its provider `hf`."""
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in problems[:1]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = [write_named(folder, body) for _, body in blocks("docs/harnesses.md", "python")]
    assert [file.name for file in written if file] == ["gsm8k.py"]
    lines = printed_lines("inspect eval")
    assert len(lines) == 2
    for line in lines:
        printed = succeeded(
            line.replace("openai/gpt-4o-mini", f"hf/{model}").replace("MODEL", str(model)), bin_, folder
        )
        assert "accuracy" in printed, printed
    assert len(list((folder / "logs").glob("*.eval"))) == 2
    assert len(list((folder / "logs" / "mcts-trees").glob("*.parquet"))) == 2


def lm_eval_snippet(bin_: Path, folder: Path, model: Path, problems: Sequence[Problem]) -> None:
    """The harness's own task gsm8k, its data set beside it under its name on the hub."""
    data = folder / "openai" / "gsm8k"
    data.mkdir(parents=True)
    for split, chosen in (("train", problems[2:12]), ("test", problems[:2])):
        rows = [{"question": p.question, "answer": f"{p.solution}\n#### {p.answer}"} for p in chosen]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
    )
    (line,) = printed_lines("mcts-dpo lm-eval")
    printed = succeeded(line.replace("MODEL", str(model)), bin_, folder)
    assert "gsm8k" in printed
    assert "flexible-extract" in printed


def trl_snippet(bin_: Path, folder: Path, model: Path, problems: Sequence[Problem]) -> None:
    """Pairs written for TRL, and `trl dpo` on them; without a network the upload ends in one line."""
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in problems]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (search,) = printed_lines("mcts-dpo search -m MODEL -p train.jsonl -o trees")
    succeeded(search.replace("MODEL", str(model)), bin_, folder)
    written, upload = printed_lines("mcts-dpo pairs trees -o preferences", "mcts-dpo pairs trees -o data --license")
    succeeded(written, bin_, folder)
    (line,) = printed_lines("trl dpo")
    printed = succeeded(line.replace("MODEL", str(model)), bin_, folder)
    assert "Training completed" in printed
    assert (folder / "policy" / "model.safetensors").exists()
    refused = shell(upload, bin_, folder)
    assert (refused.returncode, refused.stderr.count("mcts-dpo:")) == (1, 1), refused.stderr
    assert (folder / "data" / "README.md").exists()


def openai_snippet(bin_: Path, folder: Path, model: Path, problems: Sequence[Problem]) -> None:
    """`mcts-dpo serve`, and the Python snippet against it; the port is a free one."""
    line = next(line for line in printed_lines("mcts-dpo serve -m MODEL"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (snippet,) = (body for _, body in blocks("docs/server.md", "python") if "from openai import OpenAI" in body)
    assert ":8000/v1" in snippet
    snippet = snippet.replace(":8000/v1", f":{port}/v1").replace('"MODEL"', repr(model.name))
    (folder / "client.py").write_text(snippet)
    path = {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    _, *arguments = shlex.split(line.replace("MODEL", str(model)))
    serving = [str(bin_ / "mcts-dpo"), *arguments, "--port", str(port)]
    server = subprocess.Popen(serving, cwd=folder, env=clean | OFFLINE | path, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "Serving" in server.stdout.readline()
        printed = succeeded(f"{bin_ / 'python'} client.py", bin_, folder)
    finally:
        server.terminate()
        server.communicate(timeout=600)
    assert "total_tokens" in printed, printed
    assert server.returncode == 0


Snippet = Callable[[Path, Path, Path, Sequence[Problem]], None]
SNIPPETS: dict[str, tuple[tuple[str, ...], Snippet]] = {
    "inspect": (("mcts-dpo[inspect]",), inspect_snippet),
    "lm-eval": (("mcts-dpo[lm-eval]",), lm_eval_snippet),
    "openai": (("mcts-dpo[serve]", "openai"), openai_snippet),
    "trl": (("mcts-dpo", "trl"), trl_snippet),
}
"""By name: what a fresh environment gets, and what is run there."""


def fresh(name: str, folder: Path, model: Path, problems: Sequence[Problem]) -> None:
    """Make an environment with nothing but what the snippet needs, and run it there."""
    wanted, snippet = SNIPPETS[name]
    venv.create(folder / "env", with_pip=True)
    bin_ = folder / "env" / "bin"
    install = [one.replace("mcts-dpo", str(ROOT), 1) if one.startswith("mcts-dpo") else one for one in wanted]
    pip = [bin_ / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *install]
    subprocess.run([str(part) for part in pip], check=True, capture_output=True)
    (folder / "work").mkdir()
    snippet(bin_, folder / "work", model, problems)


def main(names: Sequence[str]) -> None:
    """Run the snippets by these names (none: all), each in an environment of its own."""
    from transformers import AutoTokenizer

    from mcts_dpo.toy.policy import WarmStartSettings, warm_start
    from mcts_dpo.toy.world import make_problems

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        warm_start(folder / "policy", seed=0, settings=WarmStartSettings(demonstrations=1500, steps=500, events=(1,)))
        tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder / "policy")
        problems = make_problems(16, seed=1, events=(1,))
        for name in names or list(SNIPPETS):
            (folder / name).mkdir()
            fresh(name, folder / name, folder / "policy", problems)
            print(f"{name}: the printed snippet ran in a fresh environment with {', '.join(SNIPPETS[name][0])}")


if __name__ == "__main__":
    main(sys.argv[1:])

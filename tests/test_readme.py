"""What the README and the docs promise: the example runs, commands exist, the wheel works outside the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcts_dpo.common.settings import load_settings
from mcts_dpo.pipeline.config import RunConfig
from tests.conftest import ROOT, ToyWorld
from tests.documents import PAGES
from tests.snippets import SNIPPETS

README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
"""The README and the pages of docs, as one text."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, but for the names of the model and the data, and the toy's prompt style."""
    (example,) = (block for block in blocks("python") if "from mcts_dpo import *" in block)
    example = example.replace('"Qwen/Qwen2.5-0.5B-Instruct"', repr(str(toy_world.policy)))
    example = example.replace('"openai/gsm8k", subset="main", split="train"', repr(toy_world.config.train.source))
    example = example.replace("limit=64", "limit=12").replace("PromptSettings()", "toy_prompt()")
    assert str(toy_world.policy) in example
    assert "toy_prompt()" in example
    monkeypatch.chdir(tmp_path)
    exec(compile("from mcts_dpo.toy.policy import toy_prompt\n" + example, "README.md", "exec"), {})
    assert (tmp_path / "policy" / "model.safetensors").exists()
    printed = yaml.safe_load(capsys.readouterr().out)
    assert 0 <= printed["low"] <= printed["value"] <= printed["high"] <= 1


def test_the_runs_file_of_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("yaml") if block.startswith("# run.yaml"))
    (tmp_path / "run.yaml").write_text(block)
    config = load_settings(RunConfig, tmp_path / "run.yaml")
    assert (config.model, config.rounds, config.test.limit) == ("MODEL", 3, 200)
    assert config.training.lora is not None


def test_every_command_in_the_readme_exists() -> None:
    commands = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("mcts-dpo")}
    assert {"problems", "eval", "search", "pairs", "train", "run", "report", "solve"} <= commands
    script = Path(sys.executable).parent / "mcts-dpo"
    known = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in known for command in commands)


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_000


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")}
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [installed / "python", "-E", "-c", "import mcts_dpo, verifiers; print(mcts_dpo.__file__, verifiers.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.count(str(installed.parent)) == 2
    script = installed / "mcts-dpo"
    demo = subprocess.run([script, "demo", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Watch a tiny policy improve itself" in demo.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["lm-eval", "openai"])  # the others take minutes: make snippets
def test_the_snippets_for_harnesses_run_as_printed(
    name: str, installed: Path, chat_policy: Path, toy_world: ToyWorld, tmp_path: Path
) -> None:
    """In an environment with the wheel, so that entry points are found as a user finds them (`snippets.py`)."""
    pytest.importorskip(name.replace("-", "_"))
    SNIPPETS[name][1](installed, tmp_path, chat_policy, toy_world.test)

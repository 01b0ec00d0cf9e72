"""What the README promises: its Python example runs, its commands exist, and the wheel works away from the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, ToyWorld

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, but for the names of the model and the data, and the toy's prompt style."""
    example, *_ = blocks("python")
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


def test_every_command_in_the_readme_exists() -> None:
    commands = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("mcts-dpo")}
    assert {"problems", "eval", "search", "pairs", "train", "run", "report", "solve"} <= commands
    script = Path(sys.executable).parent / "mcts-dpo"
    known = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in known for command in commands)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")}
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Build the wheel, install it alone beside the libraries that are here, and use it from an empty folder."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT]
    subprocess.run(build, check=True)
    (wheel,) = (tmp_path / "dist").glob("mcts_dpo-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    # The libraries come from this environment; the package itself must come from the wheel.
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(libraries + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    where = subprocess.run(
        [python, "-c", "import mcts_dpo, verifiers; print(mcts_dpo.__file__, verifiers.__file__)"],
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.count(str(site)) == 2
    script = tmp_path / "env" / "bin" / "mcts-dpo"
    demo = subprocess.run([script, "demo", "--help"], cwd=empty, capture_output=True, text=True, check=True)
    assert "Watch a tiny policy improve itself" in demo.stdout

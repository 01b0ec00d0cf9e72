"""What the docs print about the server works as printed (another port, and the tiny policy under the name MODEL)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ToyWorld
from tests.integrations.serving import ROOT, running, stage

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_readmes_server_and_client(toy_world: ToyWorld, tmp_path: Path) -> None:
    readme = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    section = readme[readme.index("**As an OpenAI-compatible server**") :]
    shell, snippet = re.findall(r"```(?:sh|python)\n(.*?)```", section, re.DOTALL)[:2]
    printed = shlex.split(shell, comments=True)
    assert printed[0] == "mcts-dpo"
    (tmp_path / "MODEL").symlink_to(toy_world.policy)
    sections = stage().model_dump(mode="json", include={"prompt", "search"})
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    command = [sys.executable, "-m", *["mcts_dpo", *printed[1:]], "--config", "toy.yaml", "--port", "0"]
    with running(command, tmp_path) as served:
        (tmp_path / "client.py").write_text(snippet.replace("http://127.0.0.1:8000", served.url), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "client.py"], capture_output=True, text=True, cwd=tmp_path, timeout=1800, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "CompletionUsage" in done.stdout
    assert "search_tokens" in done.stdout

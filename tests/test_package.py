"""The package as an import sees it: its names, its packages, and the refusal of another project's `verifiers`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def imported(*paths: Path, then: str = "") -> subprocess.CompletedProcess[str]:
    """`import mcts_dpo` in a fresh process that looks into `paths` first. then: a statement after it."""
    path = os.pathsep.join(map(str, (*paths, ROOT)))
    command = [sys.executable, "-P", "-c", f"import mcts_dpo; {then}"]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", ["", '__version__ = "0.1.9"\nfrom .envs import Environment\n'])
def test_a_foreign_verifiers_is_refused_in_one_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text(source)
    found = imported(tmp_path)
    assert found.returncode != 0
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: mcts-dpo needs its own package `verifiers`")
    assert str(tmp_path / "verifiers") in last
    assert "pip uninstall -y verifiers mcts-dpo" in last


def test_an_empty_folder_of_that_name_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "verifiers").mkdir()
    assert imported(tmp_path).returncode == 0


def test_packages_are_attributes_that_are_imported_on_first_use() -> None:
    found = imported(then="import sys; assert 'torch' not in sys.modules; print(mcts_dpo.search.Forest.__name__)")
    assert (found.returncode, found.stdout) == (0, "Forest\n"), found.stderr
    missing = imported(then="mcts_dpo.serch")
    assert "AttributeError: module 'mcts_dpo' has no attribute 'serch'" in missing.stderr

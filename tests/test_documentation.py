"""docs/: what it shows runs as it stands, and what it lists is what there is."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from operator import attrgetter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.suites import SUITES
from mcts_dpo.cli.app import main
from mcts_dpo.cli.settings_reference import configuration, meanings
from mcts_dpo.common.settings import Settings
from mcts_dpo.evaluation.policy import _SCHEMA as EVALUATION
from mcts_dpo.evaluation.strategies import _SCHEMA as STRATEGIES
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.recipes import load_recipe, recipe_names
from mcts_dpo.preferences import Pairs, Siblings, Solutions
from mcts_dpo.search import Forest
from mcts_dpo.search.tree_io import to_table
from tests.conftest import ROOT
from tests.documents import blocks, commands, write_named


def run_line(line: str, model: str) -> None:
    """A command of a document in this process: `mcts-dpo …` or `python FILE`."""
    program, *arguments = shlex.split(line.replace("MODEL", model))
    if program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
        return
    assert program == "mcts-dpo"
    before, sys.argv = sys.argv, [program, *arguments]
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    assert not code, line


def test_the_configuration_page_is_what_the_classes_say() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration(), "make it anew: mcts-dpo settings > docs/configuration.md"
    assert "| `search.children` | `4` | an integer ≥ 1 or a list of them | k, the number of samples that one" in page
    assert "| `training.lora.rank` |" in page
    assert set(meanings(RunConfig)) == set(RunConfig.model_fields) - set(RunConfig.__bases__[0].model_fields)


def test_the_ablations_are_those_of_the_results() -> None:
    page, results = (ROOT / name for name in ("docs/ablations.md", "benchmarks/results/ablations.md"))
    shown = page.read_text(encoding="utf-8")
    tables = [part.partition("</details>")[0] for part in shown.split("<details>")[1:]]
    assert len(tables) == len(SUITES) + 1
    kept = set(results.read_text(encoding="utf-8").splitlines())
    for lines in (table.splitlines() for table in tables):
        rows = [line for line in lines if line.startswith("|")]
        assert len(rows) > 5
        assert set(rows) <= kept


def test_a_setting_without_a_meaning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Settings):
        """Says nothing."""

        depth: int = 1

    from mcts_dpo.cli import settings_reference as reference

    with pytest.raises(ValueError, match=r"Silent\.depth: its docstring does not say"):
        reference._section(Silent, "silent.", {})


def test_a_meaning_that_mentions_another_setting_is_not_cut() -> None:
    class Chatty(Settings):
        """Its meanings mention other settings.

        depth: the number of levels. With width: 2 the tree is narrow; see
               also width: it limits the levels too.
        width, height: the size. Note that depth: 0 is refused.
        """

        depth: int = 1
        width: int = 2
        height: int = 3

    assert meanings(Chatty) == {
        "depth": "the number of levels. With width: 2 the tree is narrow; see also width: it limits the levels too.",
        "width": "the size. Note that depth: 0 is refused.",
        "height": "the size. Note that depth: 0 is refused.",
    }


def test_every_meaning_is_a_whole_sentence() -> None:
    rows = [line for line in configuration().splitlines() if line.startswith("| `")]
    cut = [row for row in rows if not row.removesuffix(" |").endswith((".", ".)", "]"))]
    assert len(rows) > 100
    assert cut == []


def test_extending_runs_as_it_stands(
    chat_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    model = str(chat_policy)
    files = []
    for language, body in blocks("docs/extending.md", "python", "yaml", "json", "sh"):
        if language == "json":
            (tmp_path / "talk.jsonl").write_text(body, encoding="utf-8")
        elif language == "sh":
            for line in commands(body):
                run_line(line, model)
        else:
            files.append(write_named(tmp_path, body, MODEL=model))
            assert body.count("\n") < 40
    assert [file.name for file in files if file] == [
        "sums.py",
        "turns.py",
        "within.py",
        "measured.yaml",
        "ranked.py",
        "brevity.py",
        "summing.py",
        "shallow.py",
        "until_agreed.py",
        "plain.py",
    ]
    printed = capsys.readouterr().out
    assert "12 problems" in printed
    assert "2 problems" in printed
    assert pq.read_metadata(tmp_path / "data" / "pairs.parquet").num_rows > 0
    assert (tmp_path / "policy" / "model.safetensors").exists()
    forest = Forest.load(next((tmp_path / "plain-trees").glob("*.parquet")))
    assert {tree.status for tree in forest.trees} <= {"simulations", "exhausted"}
    assert len(forest.parent) > len(forest.trees)
    summed = Forest.load(next((tmp_path / "summed").glob("*.parquet")))
    assert any(re.fullmatch(r"\([0-9]+\)\n", reply) for reply in summed.replies)
    assert "until-agreed" in printed
    assert "minus_majority" not in printed
    assert yaml.safe_load((tmp_path / "measured.yaml").read_text())["train"]["verifier"] == "within_one_percent"


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("## Trees", to_table(Forest({}, "none")).column_names),
        ("## Pairs", Pairs.schema.names),
        ("## Siblings", Siblings.schema.names),
        ("## Solutions", Solutions.schema.names),
        ("## Evaluations", [*EVALUATION.names, *STRATEGIES.names]),
    ],
)
def test_every_column_is_described(section: str, columns: list[str]) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    part = page.split(section)[1].split("\n## ")[0]
    assert [name for name in columns if f"`{name}`" not in part] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_code_that_pages_name_exists() -> None:
    """`package.module:function` and `package/module.py`, in the README and on every page."""
    missing, seen = [], 0
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        if page.name == "CHANGELOG.md":  # it also names what is gone
            continue
        for module, name in re.findall(r"\b((?:mcts_dpo|verifiers|benchmarks)(?:\.\w+)*):([A-Za-z_][\w.]*\w)", text):
            seen += 1
            try:
                attrgetter(name)(importlib.import_module(module))
            except (ImportError, AttributeError) as error:
                missing.append(f"{page.name}: {module}:{name} ({error})")
        paths = re.findall(r"`((?:mcts_dpo|verifiers|benchmarks|tests|docs)/[\w/-]*(?:/|\.\w+))`", text)
        missing += [f"{page.name}: {path}" for path in paths if not (ROOT / path).exists()]
    assert missing == []
    assert seen > 40


def test_every_recipe_is_in_the_table() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in recipe_names():
        says = re.escape(load_recipe(name).reproduces)
        assert re.search(rf"^\| `{name}` \|.*\| {says} \|$", page, re.MULTILINE), name

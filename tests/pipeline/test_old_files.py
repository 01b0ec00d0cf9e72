"""Files of the first edition are read, or refused in one line that says what to change; they are never misread.

That edition's own code wrote the files in `tests/golden/first-edition/`; `tests/golden/make.py` says how to make them
again. They are the trees of one golden search, its tables, and the directory of a run of one round.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mcts_dpo.cli.app import app
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, write_table
from mcts_dpo.common.settings import dump_settings, load_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.run_directory import claim, is_sound
from mcts_dpo.preferences import Pairs, Siblings, Solutions, extract_pairs, extract_siblings, extract_solutions
from mcts_dpo.report import load_run, summary_text
from mcts_dpo.search import Forest
from tests.golden import make
from tests.golden.test_golden import FOLDER, assert_same, golden, tree_columns

OLD = FOLDER / "first-edition"
TABLES = {"pairs": Pairs, "siblings": Siblings, "solutions": Solutions}


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a finished run of the first edition."""
    with tarfile.open(OLD / "run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_trees_are_those_that_were_written(tmp_path: Path) -> None:
    forest = Forest.load(OLD / "trees.parquet")
    assert_same(tree_columns(forest), golden("searches")[make.SAVED]["trees"], "trees")
    forest.save(tmp_path / "trees.parquet")
    assert Forest.load(tmp_path / "trees.parquet") == forest, "written again, they are in today's format"


def test_trees_give_the_tables_that_they_gave(tmp_path: Path) -> None:
    forest = Forest.load(OLD / "trees.parquet")
    for extract in (extract_pairs, extract_siblings, extract_solutions):
        table: Any = extract([forest])
        old = read_table(OLD / f"{table.what}.parquet").to_pydict()
        then = {column.replace("_observed", "_environment"): rows for column, rows in old.items()}
        assert len(table) > 1
        assert_same(table.table.to_pydict(), then, table.what)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_that_were_written(name: str) -> None:
    table: Any = TABLES[name].load(OLD / f"{name}.parquet")
    case = golden("searches")[make.SAVED]["tables, default"]
    ids = {"parent", "node", "leaf", "chosen_node", "rejected_node"}  # the golden file counts them tree by tree
    old = {column: rows for column, rows in case[name].items() if column not in ids}
    then = {column.replace("_observed", "_environment"): rows for column, rows in old.items()}
    assert_same(table.table.to_pydict(), then, name)


def test_trees_of_a_later_format_are_refused(tmp_path: Path) -> None:
    table = read_table(OLD / "trees.parquet")
    (key,) = (key for key in table.schema.metadata if b'"format": 1' in table.schema.metadata[key])
    about = table.schema.metadata[key].replace(b'"format": 1', b'"format": 99')
    path = tmp_path / "trees.parquet"
    write_table(path, table.replace_schema_metadata({**table.schema.metadata, key: about}))
    with pytest.raises(InputError, match=r"trees\.parquet: a forest of format 99; accepted: ") as refused:
        Forest.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    table = read_table(OLD / f"{name}.parquet")
    write_table(tmp_path / "x.parquet", table.drop_columns(["weight"]))
    with pytest.raises(InputError, match=r"x\.parquet: .*weight") as refused:
        TABLES[name].load(tmp_path / "x.parquet")
    assert "\n" not in str(refused.value)
    for other in TABLES.keys() - {name}:
        with pytest.raises(InputError):
            TABLES[other].load(OLD / f"{name}.parquet")


def test_a_run_is_reported(old_run: Path) -> None:
    before = files_in(old_run)
    record = load_run(old_run)
    assert [line["round"] for line in record.metrics] == [-1, 0]
    assert record.metrics[1]["search"]["sampled_tokens"] > 0
    assert summary_text(record)
    assert len(Forest.load(old_run / "round-000" / "trees" / "shard-0000.parquet").trees) == 3
    assert files_in(old_run) == before


def test_a_run_goes_on_when_its_settings_have_todays_names(old_run: Path) -> None:
    path = old_run / "config.yaml"
    printed = CliRunner().invoke(app, ["settings", "--migrate", str(path)])
    assert printed.exit_code == 0
    Path("new.yaml").write_text(printed.stdout, encoding="utf-8")
    config = load_settings(RunConfig, Path("new.yaml"))
    before = files_in(old_run)
    with pytest.raises(InputError) as refused:
        claim(config, old_run, False)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("run/config.yaml: ")
    assert " now" in str(refused.value)
    assert str(refused.value).endswith("it with today's names), or give another directory")
    assert files_in(old_run) == before

    shutil.copy("new.yaml", path)
    claim(config, old_run, False)
    assert path.read_text(encoding="utf-8") == dump_settings(config)
    changed = {name for name, data in files_in(old_run).items() if before.get(name) != data}
    assert changed == {"run/config.yaml", "run/environment.json"}
    assert is_sound(old_run / "round-000")

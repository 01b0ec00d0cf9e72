"""Bad input of a training, as a user meets it at the command line: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcts_dpo.cli.app import main
from mcts_dpo.preferences import PreferenceSettings, extract_pairs
from mcts_dpo.search import Forest
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture
def refused(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run `mcts-dpo train` on a file, which must be refused. Returns the one line."""

    def call(data: object, *options: str) -> str:
        before = set(tmp_path.rglob("*"))
        capsys.readouterr()
        arguments = ["train", "-m", str(policy), "-d", str(data), "-o", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", ["mcts-dpo", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert set(tmp_path.rglob("*")) == before, "nothing is left behind"
        return said.err

    return call


def spoilt(policy: Path, path: Path, **columns: Any) -> Path:
    """A file of two pairs, some columns of which say something else: past the checks that a table is made with."""
    table = pairs_of(random_rows(2), digest_of(policy)).table
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)
    return path


def test_pairs_that_are_none(policy: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    same = spoilt(policy, tmp_path / "a.parquet", chosen_tokens=[[5], [6]], rejected_tokens=[[7], [6]])
    assert f"{same}: row 1: chosen equals rejected" in refused(same)
    empty = spoilt(policy, tmp_path / "b.parquet", rejected_tokens=[[7], []])
    assert f"{empty}: row 1: rejected_tokens is [] (accepted: at least one token id)" in refused(empty)
    weight = spoilt(policy, tmp_path / "c.parquet", weight=[1.0, 0.0])
    assert f"{weight}: row 1: weight is 0.0 (accepted: a finite number above 0)" in refused(weight)


def test_a_tree_with_one_child_everywhere_has_no_pairs(
    policy: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    forest = Forest({}, digest_of(policy))
    forest.add_tree("p", (3, 4), "w3 w4", "train")
    pairs = extract_pairs([forest], PreferenceSettings())
    assert len(pairs) == 0
    pairs.save(tmp_path / "pairs.parquet")
    line = refused(tmp_path / "pairs.parquet")
    assert "pairs.parquet: no rows; there is nothing to learn from (no parent had two children" in line


def test_another_tokenizer_another_vocabulary_a_context_too_short(
    policy: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    pairs_of(random_rows(2), "another").save(tmp_path / "a.parquet")
    assert f"a.parquet: made with another tokenizer than that of the policy {policy}" in refused(tmp_path / "a.parquet")
    pairs_of([([3], [], [4], [99])], digest_of(policy)).save(tmp_path / "b.parquet")
    assert "b.parquet: row 0: token id 99 (accepted: below 31" in refused(tmp_path / "b.parquet")
    pairs_of([([3] * 80, [], [4], [5])], digest_of(policy)).save(tmp_path / "c.parquet")
    assert "c.parquet: row 0: 81 tokens (accepted: up to 64" in refused(tmp_path / "c.parquet")


def test_files_that_are_no_tables(policy: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "absent.parquet: no such file" in refused(tmp_path / "absent.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    assert "a.parquet: not a readable Parquet file" in refused(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("hello")
    assert "a.txt: not preference data (accepted: a .jsonl or .parquet file" in refused(tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_text('{"prompt": "w3 ", "chosen": "w4", "rejected": "w5"}\n\n{"prompt": "w3",\n')
    assert "a.jsonl, line 3: not JSON" in refused(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "w3 ", "chosen": "w4"}) + "\n")
    assert "b.jsonl, line 1: rejected: is missing" in refused(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("")
    assert "c.jsonl: no rows; there is nothing to learn from" in refused(tmp_path / "c.jsonl")
    pairs_of(random_rows(2), digest_of(policy)).save(tmp_path / "d.parquet")
    assert "'rft' learns from solutions, not pairs" in refused(tmp_path / "d.parquet", "training.objective=rft")
    assert "training.optimiser.lr: -1 is out of range" in refused(tmp_path / "d.parquet", "training.optimiser.lr=-1")


def test_the_checkpoint_of_another_training(policy: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    pairs_of(random_rows(24, seed=5), digest_of(policy)).save(tmp_path / "pairs.parquet")
    stopping = [
        "training.on_alarm=stop",
        "training.optimiser.lr=0.1",
        "training.data.batch_size=2",
        "training.objective.nll_weight=0",
    ]
    monkey = ["mcts-dpo", "train", "-m", str(policy), "-d", str(tmp_path / "pairs.parquet"), "-o"]
    before, sys.argv = sys.argv, [*monkey, str(tmp_path / "out"), *stopping, "training.objective.preference_weight=1"]
    try:
        with pytest.raises(SystemExit, match="2"):
            main()
    finally:
        sys.argv = before
    assert (tmp_path / "out.unfinished" / "checkpoint.safetensors").exists()
    line = refused(
        tmp_path / "pairs.parquet", "training.optimiser.lr=0.2", *stopping[2:], "training.objective.preference_weight=1"
    )
    assert "checkpoint.safetensors: checkpoint of another training (training.optimiser.lr: 0.1 -> 0.2)" in line
    assert f"remove {tmp_path / 'out.unfinished'} to start again, or give another --out" in line


def test_judges_learn_from_labelled_steps(policy: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    pairs = spoilt(policy, tmp_path / "pairs.parquet")
    said = refused(pairs, "--process-reward")
    assert said.endswith(
        "pairs.parquet: holds pairs, not labelled steps (accepted: steps.parquet, which `mcts-dpo pairs` writes)\n"
    )
    assert "pairs.parquet: holds pairs, not labelled steps" in refused(pairs, "--self-evaluation", str(pairs))
    said = refused(pairs, "--process-reward", "--value")
    assert said.endswith("--value and --process-reward: two trainings (accepted: one of them at a time)\n")

"""Folders of data files: the row that is to blame is named, nothing of the library's own is printed, bounds hold."""

import gzip
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import load_problems
from mcts_dpo.training.data.sources import rows_of

GOOD = '{"question": "a", "answer": "1"}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def told(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_problems(folder, split="train")
    with pytest.raises(InputError) as other:
        list(rows_of(folder))
    assert str(other.value) == str(caught.value)
    return str(caught.value)


def test_the_row_to_blame_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = folder / "train.jsonl"
    file.write_text(GOOD + '{"question": "a\\ud800"}\n')
    assert told(folder) == f"{file}, line 2: \"question\": holds '\\ud800', half of a character"
    file.write_text(GOOD + '{"question": \n')
    assert told(folder).startswith(f"{file}, line 2: not JSON")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_compressed_files_of_a_folder_are_bounded(folder: Path) -> None:
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() * 70_000))
    with pytest.raises(InputError, match=r"train\.jsonl\.gz: holds more than max_mib = 1 MiB"):
        load_problems(folder, max_mib=1)
    with pytest.raises(InputError, match=r"train\.jsonl\.gz: holds more than max_mib = 1 MiB"):
        list(rows_of(folder, max_mib=1))
    (folder / "train.jsonl.gz").write_bytes(b"no")
    assert "train.jsonl.gz: cannot be read" in told(folder)


def test_a_folder_that_can_be_read_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "train.jsonl").write_text(GOOD * 3)
    assert len(load_problems(folder)) == 3
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")

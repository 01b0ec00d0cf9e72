"""The engines' benchmark on a tiny model: the same tokens in every row, and rows without a result say why."""

from pathlib import Path

import pytest
import torch

from benchmarks.engines import main, row_of_a_child, table
from tests.engines.tiny import save_model


def test_a_row_in_a_child_and_one_out_of_time(tmp_path: Path) -> None:
    model = str(save_model(tmp_path))
    arguments = [model, "--batch", "2", "--prefix", "40", "--tokens", "6", "--repeats", "1"]
    found = row_of_a_child("engine transformers", 300, arguments)
    assert isinstance(found, dict), found
    assert found["2"]["identical"] == 1
    late = row_of_a_child("engine transformers", 0.1, arguments)
    lines = table({"one": found, "other": late}, [2]).splitlines()
    assert lines[2].startswith("| one | ")
    assert lines[2].endswith("| 100% |")
    assert lines[3].startswith("| other | no result within 0.1 s |")


def test_what_does_not_run_says_why(tmp_path: Path) -> None:
    said = row_of_a_child("transformers generate", 300, [str(tmp_path / "nowhere")])
    assert isinstance(said, str)
    assert said.startswith("does not run here: ")
    assert "nowhere" in said


def test_padding_changes_no_token(tmp_path: Path) -> None:
    threads, target = torch.get_num_threads(), tmp_path / "row.json"
    arguments = [str(save_model(tmp_path / "model")), "--batch", "1", "3", "--prefix", "30", "--tokens", "5"]
    try:
        main([*arguments, "--row", "transformers generate", "--json", str(target)])
    finally:
        torch.set_num_threads(threads)
    assert target.read_text().count('"identical": 1.0') == 2


@pytest.mark.parametrize("row", ["generate", ""])
def test_unknown_rows_are_refused(row: str) -> None:
    with pytest.raises(SystemExit):
        main(["model", "--row", row])

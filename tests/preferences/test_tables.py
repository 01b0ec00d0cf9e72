"""Shard by shard the tables come out as from all trees at once, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import TableWriter
from mcts_dpo.preferences import (
    PreferenceSettings,
    extract_pairs,
    extract_siblings,
    extract_solutions,
    save_tables,
    tables_of,
)
from mcts_dpo.search import counts_of_shard, search_statistics
from tests.preferences.test_extract import random_forest


@pytest.mark.parametrize("select", ["best_worst", "all"])
def test_shard_by_shard_is_all_at_once(select: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PreferenceSettings.model_validate({"select": select, "min_gap": 0.1, "weight": "samples"})
    forests = [random_forest(seed) for seed in range(5)]
    shards = [tmp_path / f"shard-{number}.parquet" for number in range(5)]
    for forest, shard in zip(forests, shards, strict=True):
        forest.save(shard)
    with monkeypatch.context() as patch:
        patch.setattr(TableWriter, "GROUP", 8)  # so that groups of rows end within shards
        counts = save_tables((tables_of(shard, settings) for shard in shards), tmp_path)
    for extract in (extract_pairs, extract_siblings, extract_solutions):
        table = extract(forests, settings)
        with monkeypatch.context() as patch:
            patch.setattr(TableWriter, "GROUP", 8)
            table.save(tmp_path / "expected")
        assert (tmp_path / f"{table.what}.parquet").read_bytes() == (tmp_path / "expected").read_bytes()
    assert counts.pairs == len(extract_pairs(forests, settings)) > 16
    assert counts.lists == extract_siblings(forests, settings).lists
    assert counts.trees == sum(len(forest.trees) for forest in forests)
    assert search_statistics(map(counts_of_shard, shards)) == search_statistics(forests)


def test_no_shard_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trees, so no tables"):
        save_tables([], tmp_path)
    assert not list(tmp_path.iterdir())


def test_tables_of_different_tokenizers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    forests = [random_forest(1), random_forest(2)]
    forests[1].tokenizer = "another"
    for number, forest in enumerate(forests):
        forest.save(tmp_path / f"shard-{number}.parquet")
    with pytest.raises(InputError, match="pairs: made with different tokenizers"):
        save_tables((tables_of(shard, PreferenceSettings()) for shard in sorted(tmp_path.iterdir())), tmp_path / "out")
    assert not (tmp_path / "out").exists()

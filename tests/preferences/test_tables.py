"""Shard by shard the tables come out as from all trees at once, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_dpo.files import InputError
from mcts_dpo.preferences import (
    PreferenceSettings,
    concatenated,
    extract_pairs,
    extract_siblings,
    extract_solutions,
    tables_of,
)
from mcts_dpo.search import counts_of_shard, search_statistics
from tests.preferences.test_extract import random_forest


@pytest.mark.parametrize("select", ["best_worst", "all"])
def test_shard_by_shard_is_all_at_once(select: str, tmp_path: Path) -> None:
    settings = PreferenceSettings.model_validate({"select": select, "min_gap": 0.1, "weight": "samples"})
    forests = [random_forest(seed) for seed in range(5)]
    shards = [tmp_path / f"shard-{number}.parquet" for number in range(5)]
    for forest, shard in zip(forests, shards, strict=True):
        forest.save(shard)
    concatenated(tables_of(shard, settings) for shard in shards).save(tmp_path)
    for extract in (extract_pairs, extract_siblings, extract_solutions):
        table = extract(forests, settings)
        table.save(tmp_path / "expected")
        assert (tmp_path / f"{table.what}.parquet").read_bytes() == (tmp_path / "expected").read_bytes()
    assert len(extract_pairs(forests, settings)) > 10
    assert search_statistics(map(counts_of_shard, shards)) == search_statistics(forests)


def test_no_shard_is_no_table() -> None:
    with pytest.raises(InputError, match="nothing to concatenate"):
        concatenated([])

"""Labels of steps in a small tree, worked out by hand; invariants on random trees; and what a table refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences import PreferenceSettings, Steps, extract_steps, tables_of, write_card, write_trl
from mcts_dpo.search import Forest
from tests.preferences.test_extract import END, grow, random_forest, small_forest

ROW: dict[str, Any] = {
    "problem_id": ["p"],
    "tree": [0],
    "leaf": [2],
    "prompt": ["Q"],
    "completions": [["a\n", "b"]],
    "labels": [[True, False]],
    "prompt_tokens": [[7]],
    "completion_tokens": [[1, 2, 3]],
    "step_ends": [[2, 3]],
    "nodes": [[1, 2]],
    "values": [[0.5, 0.0]],
    "counts": [[2, 1]],
}


def test_labels_are_shares_of_the_samples_below() -> None:
    found = extract_steps([small_forest()])
    rows = found.table.select(["completions", "labels", "values", "counts", "nodes", "step_ends", "leaf"]).to_pylist()
    assert rows == [
        {"completions": ["c\n"], "labels": [False], "values": [0.0], "counts": [3], "nodes": [3], "step_ends": [2],
         "leaf": 3},
        {"completions": ["a\n", "right"], "labels": [True, True], "values": [0.75, 1.0], "counts": [4, 3],
         "nodes": [1, 4], "step_ends": [2, 7], "leaf": 4},
        {"completions": ["a\n", "wrong"], "labels": [True, False], "values": [0.75, 0.0], "counts": [4, 1],
         "nodes": [1, 5], "step_ends": [2, 7], "leaf": 5},
        {"completions": ["b\n", "wrong"], "labels": [False, False], "values": [0.0, 0.0], "counts": [1, 1],
         "nodes": [2, 6], "step_ends": [2, 7], "leaf": 6},
    ]  # fmt: skip
    assert found.tokens("prompt_tokens")[0].tolist() == [7, 8]
    assert found.tokens("completion_tokens")[0].tolist() == [ord("c"), ord("\n")]


def test_steps_without_a_known_outcome_below_are_left_out() -> None:
    forest = Forest({}, "digest")
    forest.add_tree("p", [1], "Q")
    a = grow(forest, 0, "a\n", q=0, visits=3)
    grow(forest, a, "open\n", q=0, visits=1)
    grow(forest, a, "unknown", q=0, visits=1, finish=END)
    assert len(extract_steps([forest])) == 0
    grow(forest, a, "right", q=0, visits=2, finish=END, outcome=1)
    b = grow(forest, 0, "b\n", q=0, visits=1)
    (row,) = extract_steps([forest]).table.to_pylist()
    assert (row["completions"], row["counts"]) == (["a\n", "right"], [2, 2])
    # A reference solution that the policy never sampled says nothing of its samples.
    reference = grow(forest, b, "given", q=0, visits=1, finish=END, outcome=1)
    forest.samples[reference] = 0
    assert len(extract_steps([forest])) == 1
    forest.trees[0].status = "failed"
    assert len(extract_steps([forest])) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_known_step_is_on_a_path_with_its_own_label(seed: int) -> None:
    forest = random_forest(seed)
    found = extract_steps([forest])
    labels: dict[int, tuple[float, int]] = {}
    for row in found.table.to_pylist():
        assert row["completion_tokens"] == forest.solution_tokens(row["leaf"])
        assert row["nodes"] == forest.path(row["leaf"])[1:]
        assert "".join(row["completions"]) == forest.solution_text(row["leaf"])
        assert row["labels"] == [value > 0 for value in row["values"]]
        for node, *label in zip(row["nodes"], row["values"], row["counts"], strict=True):
            assert labels.setdefault(node, (label[0], label[1])) == tuple(label)
    for node in range(len(forest)):
        ends = [leaf for leaf in np.flatnonzero(forest.outcome).tolist() if node in forest.path(leaf)[1:]]
        total = sum(int(forest.samples[leaf]) for leaf in ends)
        right = sum(int(forest.samples[leaf]) for leaf in ends if forest.outcome[leaf] > 0)
        assert labels.get(node) == ((right / total, total) if ends else None)


def test_a_file_is_read_back_equal(tmp_path: Path) -> None:
    found = extract_steps([random_forest(3), small_forest()])
    found.save(tmp_path / "steps.parquet")
    assert Steps.load(tmp_path / "steps.parquet") == found
    Steps.from_columns({name: [] for name in ROW}, "digest").save(tmp_path / "empty.parquet")
    assert len(Steps.load(tmp_path / "empty.parquet")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [[0.5, 1.5]]}, r"row 0: values is \[0.5, 1.5\] \(accepted: shares from 0 to 1\)"),
        ({"counts": [[2, 0]]}, r"row 0: counts is \[2, 0\] \(accepted: 1 or more\)"),
        ({"step_ends": [[2, 2]]}, "step_ends .*accepted: rising indices above 0"),
        ({"step_ends": [[1, 2]]}, "step_ends .*accepted: ending with the number of completion_tokens"),
        ({"labels": [[True]]}, "labels .*accepted: one entry per step, as step_ends has"),
        ({"labels": [[1, 0]]}, r"column 'labels' is not list<.*bool>"),
        ({"completions": [["a", None]]}, "row 0: completions holds a null"),
        ({"step_ends": [[]]}, "step_ends .*accepted: at least one token id"),
    ],
)
def test_bad_columns_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^steps: .*{message}"):
        Steps.from_columns(ROW | change, "digest")


def test_the_export_is_trls_stepwise_supervision_with_a_card(tmp_path: Path) -> None:
    small_forest().save(tmp_path / "shard-0000.parquet")
    tables = tables_of(tmp_path / "shard-0000.parquet", PreferenceSettings())
    counts = write_trl(tmp_path / "data", [tables])
    assert counts.paths == 4
    table = pq.read_table(tmp_path / "data" / "prm" / "train.parquet")
    assert table.schema.names == ["prompt", "completions", "labels"]
    assert table.schema.types == [pa.string(), pa.list_(pa.string()), pa.list_(pa.bool_())]
    # TRL separates steps by a line end of its own.
    assert table.to_pylist()[1] == {"prompt": "Q:", "completions": ["a", "right"], "labels": [True, True]}
    text = write_card(tmp_path / "data").read_text()
    assert "config_name: prm" in text
    assert "| `prm` | 4 |" in text

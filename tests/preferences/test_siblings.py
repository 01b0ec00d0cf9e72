"""Lists of a small tree worked out by hand, invariants on random trees, and what a list cannot be."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences import PreferenceSettings, Siblings, extract_pairs, extract_siblings
from mcts_dpo.search import Forest
from tests.preferences.test_extract import grow, random_forest, small_forest


def lists_of(table: Siblings) -> list[list[str]]:
    steps, offsets = table.texts("completion"), table.offsets.tolist()
    return [steps[first:end] for first, end in itertools.pairwise(offsets)]


def test_every_parent_that_differs_enough_is_a_list_best_first() -> None:
    forest = small_forest()
    forest.v[:] = 0.25
    table = extract_siblings([forest])
    assert lists_of(table) == [["a\n", "c\n", "b\n"], ["right", "wrong"]]
    assert table.numbers("rank").tolist() == [0, 1, 2, 0, 1]
    assert table.numbers("label").tolist() == [True, False, False, True, False]
    assert table.texts("prompt") == ["Q:"] * 3 + ["Q:a\n"] * 2
    assert table.tokens("prefix_tokens")[4].tolist() == [ord("a"), 10]
    assert bytes(table.tokens("step_tokens")[3].tolist()) == b"right"
    assert table.numbers("samples").tolist() == [4, 3, 1, 3, 1]
    assert lists_of(extract_siblings([forest], PreferenceSettings(min_gap=1.6))) == [["right", "wrong"]]
    assert lists_of(extract_siblings([forest], PreferenceSettings(min_visits=2))) == [["a\n", "c\n"]]


def test_a_tree_with_one_child_everywhere_has_no_lists_and_no_pairs() -> None:
    forest = Forest({}, "digest")
    forest.add_tree("p", [1], "Q")
    grow(forest, grow(forest, 0, "a", q=1.0, visits=2), "b", q=1.0, visits=2)
    assert len(extract_siblings([forest])) == 0
    assert extract_siblings([forest]).offsets.tolist() == [0]
    assert len(extract_pairs([forest])) == 0


def test_other_tools_read_unpaired_preferences(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    extract_siblings([small_forest()]).save(tmp_path / "siblings.parquet")
    extract_pairs([small_forest()]).save(tmp_path / "pairs.parquet")
    cache = str(tmp_path / "cache")
    for name in ("siblings", "pairs"):
        rows = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / f"{name}.parquet"), split="train", cache_dir=cache
        )
        wanted = ("prompt", "completion", "label") if name == "siblings" else ("prompt", "chosen", "rejected")
        assert set(wanted) <= set(rows.column_names)
    assert Siblings.load(tmp_path / "siblings.parquet") == extract_siblings([small_forest()])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["best_path", "best_worst"]), st.floats(0, 1.5), st.floats(0, 3))
def test_a_list_holds_its_parents_pair(seed: int, select: Any, gap: float, shrinkage: float) -> None:
    forest = random_forest(seed)
    options = PreferenceSettings(select=select, min_gap=gap, shrinkage=shrinkage)
    table, pairs = extract_siblings([forest], options), extract_pairs([forest], options)
    first, end = table.offsets[:-1], table.offsets[1:]
    node, parent = table.numbers("node"), table.numbers("parent")
    assert parent[first].tolist() == pairs.numbers("parent").tolist()
    assert node[first].tolist() == pairs.numbers("chosen_node").tolist()
    assert (forest.parent[node] == parent).all()
    assert (np.diff(table.offsets) >= 2).all()
    value = table.numbers("value")
    assert np.allclose(value[first] - value[end - 1], pairs.numbers("margin"))


ROWS = extract_siblings([small_forest()])


def columns(**changes: Any) -> dict[str, Any]:
    names = Siblings.schema.names
    return {name: ROWS.table.column(name).to_pylist() for name in names} | changes


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("rank", [1, 1, 2, 0, 1], r"row 0 .*: rank is 1"),
        ("rank", [0, 1, 3, 0, 1], r"row 2: rank is 3 \(accepted: 0, where a list begins"),
        ("rank", [0, 1, 2, 0, 0], r"row 3 \(and 1 more rows\): rank is 0 \(accepted: a list of at least two"),
        ("value", [0.5, -1.0, 0.2, 1.0, -1.0], "row 2: value is 0.2"),
        ("parent_value", [0.0, 0.0, 0.1, 0.0, 0.0], "row 2: parent_value is 0.1"),
        ("weight", [1.0, 1.0, 1.0, 1.0, 2.0], "row 4: weight is 2.0"),
        ("weight", [1.0, 1.0, 1.0, 0.0, 0.0], "row 3 .*: weight is 0.0"),
        ("samples", [4, 3, 1, 0, 1], r"row 3: samples is 0 \(accepted: 1 or more\)"),
        ("q", [0.5, -1.0, math.nan, 1.0, -1.0], "row 2: q is nan"),
        ("prompt_tokens", [[7, 8], [7, 8], [7, 9], [7, 8], [7, 8]], "row 2: another prompt"),
        ("step_tokens", [[1], [2], [1], [3], [4]], "row 2: the same step as row 0 .'b"),
        ("step_tokens", [[1], [2], [], [3], [4]], r"row 2: step_tokens is \[\]"),
        ("label", [1, 0, 0, 1, 0], "column 'label'"),
    ],
)
def test_what_a_list_cannot_be_is_named_with_its_row(column: str, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^siblings: {message}"):
        Siblings.from_columns(columns(**{column: values}), "digest")


def test_lists_are_joined_and_taken_whole() -> None:
    joined = Siblings.concatenate([ROWS, ROWS.take([3, 4])])
    assert [len(one) for one in lists_of(joined)] == [3, 2, 2]
    with pytest.raises(InputError, match="row 0: rank is 1"):
        ROWS.take([1, 2])

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences.dataset import Pairs, Solutions

tokens = st.lists(st.integers(0, 2**31 - 1), max_size=4)
some = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4)
number = st.floats(-10, 10)
row = st.tuples(some, tokens, some, some, st.floats(0, 0.49), st.floats(1e-6, 9), number, st.text(max_size=5)).filter(
    lambda one: one[2] != one[3]
)


def columns(rows: list[Any]) -> dict[str, Any]:
    n = len(rows)
    prompt, prefix, chosen, rejected, smoothing, weight, q, text = map(list, zip(*rows, strict=True))
    return {
        "problem_id": [f"p{i}" for i in range(n)],
        **{name: list(range(n)) for name in ("tree", "parent", "chosen_node", "rejected_node")},
        "prompt": text,
        "chosen": ["so 2\n"] * n,
        "rejected": ["so 3\n"] * n,
        "prompt_tokens": prompt,
        "prefix_tokens": prefix,
        "chosen_tokens": chosen,
        "rejected_tokens": rejected,
        **dict.fromkeys(("chosen_q", "rejected_q", "margin", "chosen_logprob", "rejected_logprob"), q),
        **{f"{kind}_{what}": [1] * n for kind in ("chosen", "rejected") for what in ("visits", "samples")},
        "smoothing": smoothing,
        "weight": weight,
    }


ROWS = [
    ([1, 2], [], [3], [4], 0.0, 1.0, 0.5, "a"),
    ([1], [5, 6], [7, 8], [7], 0.2, 2.0, -0.5, "b"),
    ([9, 9, 9], [1], [2, 3], [2, 4], 0.4, 0.5, 1.0, "c"),
]
SOLUTIONS: dict[str, Any] = {
    "problem_id": ["p", "q"],
    "tree": [0, 1],
    "leaf": [4, 9],
    "prompt": ["2 + 2?", "3 + 3?"],
    "completion": ["4", "6"],
    "prompt_tokens": [[1, 2], [3]],
    "completion_tokens": [[4], [5, 6, 7]],
    "q": [1.0, 0.5],
    "weight": [1.0, 3.0],
}


@given(st.lists(row, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_what_goes_in_comes_out_of_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    given_columns = columns(rows)
    made = Pairs.from_columns(given_columns, "digest")
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    made.save(path)
    loaded = Pairs.load(path)
    assert loaded == made
    assert (len(loaded), loaded.tokenizer) == (len(rows), "digest")
    for name in ("prompt_tokens", "prefix_tokens", "chosen_tokens", "rejected_tokens"):
        ragged = loaded.tokens(name)
        assert [ragged[i].tolist() for i in range(len(ragged))] == given_columns[name]
        assert ragged.lengths.tolist() == [len(one) for one in given_columns[name]]
    assert loaded.numbers("weight").tolist() == given_columns["weight"]
    assert loaded.numbers("tree").dtype == np.int32
    assert loaded.texts("prompt") == given_columns["prompt"]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Pairs.from_columns(columns(ROWS), "digest").save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_tools_read_the_columns_of_trl(tmp_path: Path) -> None:
    Pairs.from_columns(columns(ROWS), "digest").save(tmp_path / "pairs.parquet")
    frame = pq.read_table(tmp_path / "pairs.parquet", columns=["prompt", "chosen", "rejected"]).to_pylist()
    assert frame[1] == {"prompt": "b", "chosen": "so 2\n", "rejected": "so 3\n"}
    Solutions.from_columns(SOLUTIONS, "digest").save(tmp_path / "solutions.parquet")
    frame = pq.read_table(tmp_path / "solutions.parquet", columns=["prompt", "completion"]).to_pylist()
    assert frame[1] == {"prompt": "3 + 3?", "completion": "6"}


def test_rows_are_taken_and_joined_in_order() -> None:
    table = Pairs.from_columns(columns(ROWS), "digest")
    back = table.take([2, 0])
    assert back.texts("prompt") == ["c", "a"]
    assert back.tokens("prefix_tokens")[0].tolist() == [1]
    joined = Pairs.concatenate([back, table.take([]), table.take([1])])
    assert joined.texts("prompt") == ["c", "a", "b"]
    assert joined.tokens("chosen_tokens").values.tolist() == [2, 3, 3, 7, 8]
    assert joined == table.take([2, 0, 1])
    assert joined != table
    assert (len(table.take([])), len(table.take([]).tokens("chosen_tokens"))) == (0, 0)


def test_tables_of_two_tokenizers_are_not_joined() -> None:
    parts = [Pairs.from_columns(columns(ROWS), name) for name in ("one", "two")]
    assert parts[0] != parts[1]
    with pytest.raises(InputError, match="pairs: made with different tokenizers"):
        Pairs.concatenate(parts)
    with pytest.raises(InputError, match="solutions: nothing to concatenate"):
        Solutions.concatenate([])


def test_an_empty_table_survives_the_file(tmp_path: Path) -> None:
    empty = Solutions.from_columns({name: [] for name in SOLUTIONS}, "digest")
    empty.save(tmp_path / "solutions.parquet")
    assert len(Solutions.load(tmp_path / "solutions.parquet")) == 0


def test_a_token_column_may_come_as_an_arena() -> None:
    table = Solutions.from_columns(SOLUTIONS, "digest")
    again = Solutions.from_columns(SOLUTIONS | {"completion_tokens": table.tokens("completion_tokens")}, "digest")
    assert again == table
    with pytest.raises(IndexError):
        table.tokens("completion_tokens")[2]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("rejected_tokens", [[4], [7], [2, 3]], "row 2: chosen equals rejected"),
        ("chosen_tokens", [[3], [], [2, 3]], r"row 1: chosen_tokens is \[\] \(accepted: at least one token id\)"),
        ("rejected_tokens", [[], [], [1]], r"row 0 \(and 1 more rows\): rejected_tokens is \[\]"),
        ("prompt_tokens", [[1], [1], []], "row 2: prompt_tokens is"),
        ("prefix_tokens", [[], [5, -6], [1]], r"row 1: prefix_tokens holds -6 \(accepted: ids from 0\)"),
        ("chosen_tokens", [[3], [7, 2**31], [2]], "column 'chosen_tokens' is not list<item: int32>"),
        ("chosen_tokens", [[3], [7, 1.5], [2]], "column 'chosen_tokens' is not list<item: int32> .*fractions"),
        ("chosen_tokens", [3, 7, 2], "column 'chosen_tokens' is not list"),
        ("tree", ["a", "b", "c"], "column 'tree' is not int32"),
        ("tree", [0.0, 1.5, 2.0], "column 'tree' is not int32 .*fractions"),
        ("tree", [0, None, 2], r"row 1: tree is null \(accepted: int32\)"),
        ("tree", [0, 1], "tree has 2 rows, problem_id has 3"),
        ("chosen", [1, 2, 3], "column 'chosen' is not string"),
        ("smoothing", [0.0, 0.5, 0.1], r"row 1: smoothing is 0.5 \(accepted: from 0 to below 0.5\)"),
        ("smoothing", [0.0, 0.1, math.nan], "row 2: smoothing is nan"),
        ("weight", [0.0, 1.0, 1.0], r"row 0: weight is 0.0 \(accepted: a finite number above 0\)"),
        ("weight", [1.0, math.inf, 1.0], "row 1: weight is inf"),
        ("margin", [1.0, math.nan, 1.0], r"row 1: margin is nan \(accepted: a finite number\)"),
        (
            "chosen_environment",
            [[], [2], []],
            r"row 1: chosen_environment is \[2\] \(accepted: rising indices in chosen",
        ),
        ("prefix_environment", [[], [1, 1], []], r"row 1: prefix_environment is \[1, 1\] \(accepted: rising"),
        ("rejected_environment", [[], [0], []], r"row 1: rejected_environment is \[0\] \(accepted: not every token"),
        (
            "chosen_logprob",
            [-1.0, -math.inf, math.nan],
            r"row 1: chosen_logprob is -inf \(accepted: .* nan for unknown",
        ),
        ("chozen", [1, 2, 3], "unknown column 'chozen'"),
    ],
)
def test_what_a_pair_cannot_be_is_named_with_its_row(column: str, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^pairs: {message}"):
        Pairs.from_columns(columns(ROWS) | {column: values}, "digest")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("completion_tokens", [[4], []], r"row 1: completion_tokens is \[\]"),
        ("weight", [-1.0, 1.0], "row 0: weight is -1.0"),
        ("q", [math.nan, 1.0], "row 0: q is nan"),
    ],
)
def test_what_a_solution_cannot_be_is_named_with_its_row(column: str, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^solutions: {message}"):
        Solutions.from_columns(SOLUTIONS | {column: values}, "digest")


def written(path: Path, *, drop: str = "", metadata: dict[str, str] | None = None, **changes: Any) -> Path:
    """A file as another tool might write it: Arrow's own choice of types, columns in another order."""
    content = {name: values for name, values in (columns(ROWS) | changes).items() if name != drop}
    table = pa.table({name: pa.array(content[name]) for name in sorted(content)})
    pq.write_table(table.replace_schema_metadata({"tokenizer": "digest"} if metadata is None else metadata), path)
    return path


def test_wider_types_and_more_columns_of_other_tools_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.parquet", note=["x", "y", "z"], weight=[1, 2, 3])
    assert pq.read_schema(path).field("tree").type == pa.int64()
    expected = Pairs.from_columns(columns(ROWS) | {"weight": [1.0, 2.0, 3.0]}, "digest")
    assert Pairs.load(path) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "smoothing"}, "column 'smoothing' is missing"),
        ({"tree": ["a", "b", "c"]}, r"column 'tree' is string \(accepted: int32\)"),
        ({"tree": [0.0, 1.0, 2.0]}, r"column 'tree' is double \(accepted: int32\)"),
        ({"tree": [0, 1, 2**40]}, "column 'tree' does not fit int32"),
        ({"chosen_tokens": ["a", "b", "c"]}, r"column 'chosen_tokens' is string \(accepted: list"),
        ({"chosen_tokens": [[1.5], [2.0], [3.0]]}, "column 'chosen_tokens' is list<.*double>"),
        ({"prompt": [1, 2, 3]}, r"column 'prompt' is int64 \(accepted: string\)"),
        ({"weight": [1.0, None, 1.0]}, r"row 1: weight is null \(accepted: double\)"),
        ({"weight": [1.0, 1.0, 0.0]}, "row 2: weight is 0.0"),
        ({"metadata": {}}, "no digest of the tokenizer"),
    ],
)
def test_a_wrong_file_is_named_with_column_and_row(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "pairs.parquet", **changes)
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        Pairs.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs\.parquet: no such file"):
        Pairs.load(tmp_path / "pairs.parquet")


def test_environment_tokens_are_kept_and_a_file_without_them_has_none(tmp_path: Path) -> None:
    seen = {"prefix_environment": [[], [0, 1], []], "chosen_environment": [[], [1], []]}
    table = Pairs.from_columns(columns(ROWS) | seen, "digest")
    table.save(tmp_path / "pairs.parquet")
    loaded = Pairs.load(tmp_path / "pairs.parquet")
    assert [mask.tolist() for mask in loaded.environment_mask("prefix")] == [[], [True, True], [False]]
    assert [mask.tolist() for mask in loaded.environment_mask("chosen")] == [[False], [False, True], [False, False]]
    assert not any(mask.any() for mask in Pairs.load(written(tmp_path / "other.parquet")).environment_mask("prefix"))
    # The first edition called the columns "…_observed".
    names = [name.replace("_environment", "_observed") for name in table.table.column_names]
    older = table.table.rename_columns(names).replace_schema_metadata(table.table.schema.metadata)
    pq.write_table(older, tmp_path / "older.parquet")
    assert Pairs.load(tmp_path / "older.parquet") == loaded

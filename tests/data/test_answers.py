"""Reference answers from whatever a data set holds them as: lists, numbers, nothing, several boxes."""

import decimal
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import load_problems, unparsable_answers
from mcts_dpo.data.answers import decimal_text
from mcts_dpo.data.formats.math import boxed_answer
from verifiers import verify


def loaded(tmp_path: Path, answer: Any, **settings: Any) -> str | None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": answer}) + "\n")
    return load_problems(path, **settings)[0].answer


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (["12"], "12"),
        ([["12"]], "12"),
        ([7], "7"),
        (["1", "2"], "1, 2"),
        ([1, 2.5, "x"], "1, 2.5, x"),
        ([], None),
        ([None], None),
        (math.nan, None),
        (None, None),
        ([math.nan], None),
        (0.1, "0.1"),
        (3.0, "3"),
        (-0.0, "0"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (1e300, "1e+300"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("layout", ["auto", "mawps", "columns"])
def test_forms_of_answers(tmp_path: Path, given: Any, answer: str | None, layout: str) -> None:
    assert loaded(tmp_path, given, format=layout) == answer


@pytest.mark.parametrize(
    "given", [{"value": 3}, [["1"], ["2"]], ["1", None], ["1", {"b": 2}], math.inf, [{}], ["1", ""]]
)
def test_what_is_no_answer_is_refused_by_name(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InputError, match=r"set\.jsonl, line 1: the answer is .* \(accepted: text, a number, or a list"):
        loaded(tmp_path, given)


def test_several_parts_are_one_answer(tmp_path: Path) -> None:
    answer = loaded(tmp_path, ["3", "5"])
    assert answer is not None
    assert verify(answer, "3, 5")
    assert not verify(answer, "3")
    assert not verify(answer, "3, 6")


def test_bytes_and_decimals_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"question": ["a"], "answer": pa.array([b"12"])}), path)
    with pytest.raises(InputError, match=r"set\.parquet, row 1: the answer is bytes"):
        load_problems(path)
    prices = pa.array([decimal.Decimal("1.50"), None], pa.decimal128(5, 2))
    pq.write_table(pa.table({"question": ["a", "b"], "answer": prices}), path)
    assert [problem.answer for problem in load_problems(path)] == ["1.50", None]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64()])
def test_narrow_floats_keep_their_shortest_decimal(tmp_path: Path, kind: Any) -> None:
    import numpy as np

    values = [0.1, 2.5, None, 3.0, math.nan]
    wide = pa.array(np.array([0 if v is None else v for v in values], kind.to_pandas_dtype()), kind)
    mask = [v is None for v in values]
    table = pa.table(
        {
            "question": list("abcde"),
            "answer": pa.array([None if m else v for m, v in zip(mask, wide, strict=True)], kind),
            "listed": pa.array([[v] for v in wide], pa.list_(kind)),
        }
    )
    pq.write_table(table, tmp_path / "set.parquet")
    assert [p.answer for p in load_problems(tmp_path / "set.parquet")] == ["0.1", "2.5", None, "3", None]
    listed = load_problems(tmp_path / "set.parquet", columns={"answer": "listed"}, limit=2)
    assert [p.answer for p in listed] == ["0.1", "2.5"]


def test_narrow_floats_of_a_saved_data_set(tmp_path: Path) -> None:
    import datasets

    table = pa.table({"question": ["a"], "answer": pa.array([0.1], pa.float32())})
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    assert load_problems(tmp_path / "saved")[0].answer == "0.1"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_the_number(value: float) -> None:
    text = decimal_text(value)
    assert float(text) == value
    assert not text.endswith(".0")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"Thus $x=\boxed{2}$ and $y=\boxed{3}$.", "2, 3"),
        (r"The roots are $\boxed{1}, \boxed{-4}$.", "1, -4"),
        (r"Hence $x=\boxed{1}$ or $x=\boxed{5}$.", "1, 5"),
        (r"It is $\boxed{1\frac{1}{2}}$ or $\boxed{\frac{3}{2}}$.", r"\frac{3}{2}"),
        (r"It is \boxed{1}, no, \boxed{2}.", "2"),
        (r"(a) The first is $\boxed{3}$. (b) The second is $\boxed{4}$.", "(3, 4)"),
        (r"$a = \boxed{5} \quad b = \boxed{6}$", "5, 6"),
        (r"We have \boxed{4}. Wait, that is wrong. It is \boxed{7} and \boxed{8}.", "7, 8"),
        (r"So \boxed{5}. Therefore the answer is \boxed{5}.", "5"),
        (r"\boxed{} and \boxed{3}", "3"),
        (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("nothing", None),
    ],
)
def test_boxes_of_one_conclusion_are_one_answer(tmp_path: Path, solution: str, answer: str | None) -> None:
    assert boxed_answer(solution) == answer
    path = tmp_path / "math.jsonl"
    path.write_text(json.dumps({"problem": "?", "solution": solution}) + "\n")
    assert load_problems(path)[0].answer == (answer or "")


def test_an_answer_column_that_holds_nothing_leaves_the_box(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_text(json.dumps({"problem": "?", "solution": r"\boxed{4}", "answer": math.nan}) + "\n")
    assert load_problems(path)[0].answer == "4"


def test_no_answer_is_not_one_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "a", "answer": NaN}\n{"question": "b", "answer": "?"}\n')
    assert [problem.question for problem in unparsable_answers(load_problems(path))] == ["b"]

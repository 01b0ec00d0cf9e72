"""Problems: every layout and file kind, what is said of bad input, selection, contamination."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import (
    Problem,
    ProblemSettings,
    last_boxed,
    load_problems,
    overlap,
    save_problems,
    unparsable_answers,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' files are not beside the checkout")

GSM8K = [
    {"question": "2 and 3?", "answer": "2+3=<<2+3=5>>5\n#### 5"},
    {"question": "A thousand and two?", "answer": "Sum.\n#### 1,002"},
    {"question": "Half?", "answer": "#### -1/2"},
]
MATH = [
    {"problem": "What is $x$?", "solution": "So $x=\\boxed{\\frac{1}{2}}$.", "level": "Level 1", "type": "Algebra"},
    {"problem": "And $y$?", "solution": "It is \\boxed{1}, no, \\boxed{2}."},
    {"problem": "And $z$?", "solution": "Nobody knows."},
]
ARC = [
    {
        "id": "arc-7",
        "question": "Which is hot?",
        "choices": {"text": ["ice", "fire", "snow"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    {
        "id": "arc-9",
        "question": "Which is cold?",
        "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
        "answerKey": "1",
    },
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def complaint(source: Path | str, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_problems(source, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- layouts


def test_gsm8k_answer_after_the_hashes_and_rationale_before(tmp_path: Path) -> None:
    problems = load_problems(lines(tmp_path / "train.jsonl", GSM8K))
    assert problems[0] == Problem(
        id="train-1",
        question="2 and 3?",
        answer="5",
        solution="2+3=<<2+3=5>>5",
        source=str(tmp_path / "train.jsonl"),
    )
    assert [problem.answer for problem in problems] == ["5", "1,002", "-1/2"]
    assert problems[2].solution == ""


def test_math_answer_is_the_column_or_the_last_box(tmp_path: Path) -> None:
    problems = load_problems(lines(tmp_path / "math.jsonl", MATH))
    assert [problem.answer for problem in problems] == ["\\frac{1}{2}", "2", ""]
    assert problems[0].solution == MATH[0]["solution"]
    rows = [{**MATH[0], "answer": "0.5", "unique_id": "test/algebra/1.json"}]
    (problem,) = load_problems(lines(tmp_path / "math500.jsonl", rows))
    assert (problem.id, problem.answer) == ("test/algebra/1.json", "0.5")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{1}", "1"),
        (r"\boxed{\frac{1}{2}} and \fbox{ {a}{b} }", "{a}{b}"),
        (r"\boxed {3}", "3"),
        (r"\boxed 5$", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a \} b}} c}", r"\text{a \} b}"),
        (r"\boxed{1} then \boxed{2", None),
        (r"\boxed{}", ""),
        ("none", None),
    ],
)
def test_last_box(text: str, box: str | None) -> None:
    assert last_boxed(text) == box


@given(st.recursive(st.text("ab1 "), lambda inner: st.lists(inner).map(lambda parts: "{" + "".join(parts) + "}")))
def test_a_box_holds_whatever_is_balanced(content: str) -> None:
    assert last_boxed(f"\\boxed{{0}} so \\boxed{{{content}}} }}{{") == content.strip()


def test_mawps_numbers_become_text(tmp_path: Path) -> None:
    rows = [{"question": "a?", "answer": 4}, {"question": "b?", "answer": 4.0}, {"question": "c?", "answer": 0.5}]
    problems = load_problems(lines(tmp_path / "mawps.jsonl", rows), format="mawps")
    assert [problem.answer for problem in problems] == ["4", "4", "0.5"]
    assert [problem.solution for problem in problems] == [None] * 3


def test_choices_are_lettered_whatever_their_labels(tmp_path: Path) -> None:
    problems = load_problems(lines(tmp_path / "arc.jsonl", ARC))
    assert [(problem.id, problem.choices, problem.answer) for problem in problems] == [
        ("arc-7", ("ice", "fire", "snow"), "B"),
        ("arc-9", ("ice", "fire"), "A"),
    ]


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["x", "y"], 1, "B"),  # MMLU: an index from 0
        (["x", "y"], "y", "B"),
        (["x", "y"], "A", "A"),
        (["x", "y"], "z", "z"),  # names no choice: kept
        ([{"text": "x", "label": "P"}, {"text": "y", "label": "Q"}], "Q", "B"),
        ('["x", "y"]', "B", "B"),
        ({"text": [3, 4], "label": [1, 2]}, 2, "B"),
        (["x", "y"], None, None),
    ],
)
def test_forms_of_choices_and_keys(tmp_path: Path, choices: Any, answer: Any, letter: str | None) -> None:
    path = lines(tmp_path / "mc.jsonl", [{"question": "?", "choices": choices, "answer": answer}])
    (problem,) = load_problems(path)
    assert problem.answer == letter
    assert len(problem.choices) == 2


@pytest.mark.parametrize("choices", [["one"], {"text": ["a", "b"], "label": ["A"]}, "not JSON", 3, {"label": ["A"]}])
def test_bad_choices(tmp_path: Path, choices: Any) -> None:
    path = lines(tmp_path / "mc.jsonl", [{"question": "?", "choices": choices, "answer": "A"}])
    assert complaint(path, format="choice").startswith(f"{path}, line 1: the choices are ")


def test_any_columns(tmp_path: Path) -> None:
    rows = [{"prompt": " Why? ", "target": "7", "worked": "3+4", "key": 12}]
    columns = {"question": "prompt", "answer": "target", "solution": "worked", "id": "key"}
    path = lines(tmp_path / "own.jsonl", rows)
    assert load_problems(path, columns=columns) == [Problem("12", "Why?", "7", "3+4", source=str(path))]
    assert load_problems(path, columns={"question": "prompt"})[0].answer is None


def test_columns_rename_within_a_layout(tmp_path: Path) -> None:
    path = lines(tmp_path / "own.jsonl", [{"q": "?", "a": "1+1\n#### 2"}])
    (problem,) = load_problems(path, format="gsm8k", columns={"question": "q", "answer": "a"})
    assert (problem.answer, problem.solution) == ("2", "1+1")


def test_questions_alone_will_do(tmp_path: Path) -> None:
    (problem,) = load_problems(lines(tmp_path / "ask.jsonl", [{"question": "?"}]))
    assert problem.answer is None


def test_withheld_answers() -> None:
    problem = Problem("1", "q", "a", "s", ("x", "y"), "f")
    assert problem.without_answer() == Problem("1", "q", None, None, ("x", "y"), "f")
    assert problem.answer == "a"


# --- kinds of files


def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path) -> None:
    wanted = [(p.question, p.answer, p.solution) for p in load_problems(lines(tmp_path / "set.jsonl", GSM8K))]
    (tmp_path / "set.json").write_text(json.dumps(GSM8K, indent=1))
    lines(tmp_path / "each.json", GSM8K)
    pq.write_table(pa.Table.from_pylist(GSM8K), tmp_path / "set.parquet")
    with (tmp_path / "set.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(GSM8K)
    for name in ("set.jsonl", "set.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "set.csv").read_bytes())
    for name in ("set.json", "each.json", "set.parquet", "set.csv", "set.jsonl.gz", "set.csv.gz", "bom.csv"):
        problems = load_problems(tmp_path / name)
        assert [(p.question, p.answer, p.solution) for p in problems] == wanted, name
        assert problems[0].id == f"{name.partition('.')[0]}-1"


def test_blank_lines_and_unicode_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "a\u2028b?"}\n\n{"question": "c?"}\r\n', encoding="utf-8")
    assert [(p.id, p.question) for p in load_problems(path)] == [("set-1", "a\u2028b?"), ("set-2", "c?")]


@pytest.fixture
def datasets_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `datasets` in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_a_folder_is_a_data_set_with_splits(datasets_home: Path) -> None:
    folder = datasets_home / "gsm8k"
    folder.mkdir()
    lines(folder / "train.jsonl", GSM8K)
    lines(folder / "test.jsonl", GSM8K[:1])
    assert [p.id for p in load_problems(folder, split="train")] == ["gsm8k-train-1", "gsm8k-train-2", "gsm8k-train-3"]
    assert load_problems(folder, split="test")[0].answer == "5"
    assert complaint(folder) == f"{folder}: split: not given (accepted: train, test)"
    assert complaint(folder, split="tset").endswith("split: no 'tset'; did you mean 'test'? (accepted: train, test)")


def test_what_the_datasets_library_saved(datasets_home: Path) -> None:
    import datasets

    arc = datasets.Dataset.from_list(ARC)
    arc.save_to_disk(str(datasets_home / "one"))
    datasets.DatasetDict(validation=arc).save_to_disk(str(datasets_home / "named"))
    assert [p.answer for p in load_problems(datasets_home / "one")] == ["B", "A"]
    assert [p.id for p in load_problems(datasets_home / "named")] == ["arc-7", "arc-9"]
    assert "one split without a name" in complaint(datasets_home / "one", split="train")
    assert "saved data set has no subsets" in complaint(datasets_home / "one", subset="main")


def test_a_subset_of_a_folder(datasets_home: Path) -> None:
    folder = datasets_home / "math"
    folder.mkdir()
    lines(folder / "algebra.jsonl", MATH)
    lines(folder / "geometry.jsonl", MATH[:1])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: algebra\n  data_files: algebra.jsonl\n"
        "- config_name: geometry\n  data_files: geometry.jsonl\n---\n"
    )
    assert [p.id for p in load_problems(folder, subset="geometry")] == ["math-geometry-train-1"]
    assert "algebra" in complaint(folder)


def test_a_name_that_no_hub_can_serve(datasets_home: Path) -> None:
    folder = datasets_home / "empty"
    folder.mkdir()
    assert complaint(folder).startswith(f"{folder}: not a file, nor a data set that can be loaded (")


# --- bad input


def test_missing_file_with_the_nearest_name(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", GSM8K)
    wrong = tmp_path / "trian.jsonl"
    assert complaint(wrong) == f"{wrong}: no such file; did you mean '{tmp_path / 'train.jsonl'}'?"
    assert complaint(tmp_path / "nowhere" / "x.jsonl") == f"{tmp_path / 'nowhere' / 'x.jsonl'}: no such file"


def test_a_kind_of_file_that_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "set.xlsx"
    path.write_text("x")
    assert complaint(path) == f"{path}: a .xlsx file (accepted: .jsonl, .json, .csv, .parquet, or a folder)"


def test_files_have_no_splits(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", GSM8K)
    assert complaint(path, split="test") == f"{path}: split: 'test', but a file has no splits"
    assert complaint(path, subset="main") == f"{path}: subset: 'main', but a file has no subsets"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"question": "a"}\n{"question": \n', ", line 2: not JSON (Expecting value"),
        ("a.jsonl", '{"question": "a"}\n[1]\n', ", line 2: not an object of columns but [1]"),
        ("a.json", '[{"question": "a"},\n{"question" "b"}]', ", line 2: not JSON"),
        ("a.json", "3", ": not a list of objects"),
        ("a.json", '[{"question": "a"}, 4]', ", row 2: not an object of columns but 4"),
        ("a.csv", 'question,answer\n"a\nb",1\nc\n', ", line 4: 1 cells, but the header has 2 columns"),
        ("a.csv", 'question,answer\n"a"b,1\n', ", line 2: not CSV"),
        ("a.parquet", "no", ": not a readable Parquet file"),
        ("a.jsonl", "\n", ": no problems in it"),
        ("a.json", "", ": no problems in it"),
        ("a.csv", "question,answer\n", ": no problems in it"),
        ("a.jsonl", '{"question": "a"}\n{"question": " "}\n', ", line 2: the question is empty"),
        ("a.jsonl", '{"question": "a", "solution": [1]}\n', ", line 1: the solution is [1], not text"),
        ("a.jsonl", '{"question": 3}\n', ", line 1: the question is 3, not text"),
        ("a.jsonl", '{"question": "a"}\n\n{"qestion": "b"}\n', ", line 3: no column 'question' for the question; did"),
    ],
)
def test_where_a_file_is_wrong(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert complaint(path).startswith(f"{path}{told}")


def test_not_text_and_not_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "a"}\n{"question": "\xff"}\n')
    assert complaint(path) == f"{path}, line 2: not UTF-8 text"
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"not gzip")
    assert "cannot be read" in complaint(path)


def test_a_missing_column_lists_what_is_there(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"Question": "a", "x": 1}])
    assert complaint(path) == (
        f"{path}, line 1: no column 'question' for the question; did you mean 'Question'? "
        "(there are 'Question', 'x'; name it with columns.question)"
    )
    assert complaint(path, columns={"question": "Qest"}) == (
        f"{path}, line 1: no column 'Qest' for the question; did you mean 'Question'? (there are 'Question', 'x')"
    )


def test_duplicate_ids_with_both_places(tmp_path: Path) -> None:
    rows = [{"question": "a", "id": "x"}, {"question": "b", "id": "y"}, {"question": "c", "id": "x"}]
    path = lines(tmp_path / "a.jsonl", rows)
    assert complaint(path) == f"{path}, line 3: the id 'x' is already that of {path}, line 1"


def test_settings_are_checked(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GSM8K)
    assert "limit: 0 is out of range" in complaint(path, limit=0)
    assert "lmit: unknown setting; did you mean 'limit'?" in complaint(path, lmit=3)
    assert "columns.qestion: unknown name; did you mean 'question'?" in complaint(path, columns={"qestion": "q"})


# --- selection


def test_offset_limit_and_shuffle(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"question": f"{i}?"} for i in range(50)])
    whole = load_problems(path)
    assert load_problems(path, offset=10, limit=5) == whole[10:15]
    assert load_problems(path, offset=48, limit=5) == whole[48:]
    shuffled = load_problems(path, shuffle_seed=1)
    assert shuffled != whole
    assert sorted(shuffled, key=whole.index) == whole
    assert load_problems(path, shuffle_seed=1, offset=3, limit=4) == shuffled[3:7]
    assert load_problems(path, shuffle_seed=2) != shuffled
    # Fixed for good: a run directory of today must mean the same problems tomorrow.
    assert [problem.id for problem in shuffled[:4]] == ["a-21", "a-24", "a-37", "a-16"]
    assert "offset: 50 is past the end (it has 50 problems)" in complaint(path, offset=50)


def test_settings_object_and_overrides_of_it(tmp_path: Path) -> None:
    settings = ProblemSettings(source=str(lines(tmp_path / "a.jsonl", GSM8K)), limit=2)
    assert len(load_problems(settings)) == 2
    assert len(load_problems(settings, limit=1)) == 1


# --- checks


def test_unparsable_answers_are_kept_and_told(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "12"},
        {"question": "b", "answer": ""},
        {"question": "c", "answer": "\\frac{1}{"},
        {"question": "d"},
        {"question": "e", "answer": "???"},
        {"question": "f", "answer": "}x{"},
        {"question": "g", "answer": "\\{1, \\frac{1}{2}\\}"},
        {"question": "h", "answer": "east"},
    ]
    problems = load_problems(lines(tmp_path / "a.jsonl", rows))
    assert [problem.question for problem in unparsable_answers(problems)] == ["b", "c", "e", "f"]
    choices = [Problem("1", "?", "B", choices=("x", "y")), Problem("2", "?", "C", choices=("x", "y"))]
    assert unparsable_answers(choices) == choices[1:]


def test_overlap_ignores_case_space_and_prose_punctuation_only() -> None:
    def problems(*questions: str) -> list[Problem]:
        return [Problem(str(index), question) for index, question in enumerate(questions)]

    train = problems("Tom has 1,000 eggs.\nHow many?", "What is 3.5?", "What is a-b?", "Other")
    test = problems("tom  has 1000 eggs; how many", "What is 35?", "What is a+b?", "what is 3.5")
    assert overlap(train, test) == [("0", "0"), ("1", "3")]
    assert overlap([Problem("a", "Which?", choices=("x", "y"))], [Problem("b", "Which?", choices=("x", "z"))]) == []
    assert overlap(train[:1] * 2, test[:1] * 2) == [("0", "0")] * 4


def test_overlap_by_runs_of_words() -> None:
    words = "the quick brown fox jumps over the lazy dog and runs away from it again"
    train, test = [Problem("a", f"One day {words}. Why?")], [Problem("b", f"{words} because?"), Problem("c", "the fox")]
    assert overlap(train, test) == []
    assert overlap(train, test, ngram=13) == [("a", "b")]
    assert overlap(train, test, ngram=16) == []


def test_saved_problems_are_read_back_equal(tmp_path: Path) -> None:
    problems = [
        Problem("1", "Why?\u2028ß", "7", "3+4\n"),
        Problem("2", "Which?", "B", choices=("x", "y")),
        Problem("3", "Ask", solution=""),
    ]
    for number, problem in enumerate(problems):
        path = tmp_path / f"{number}.jsonl"
        save_problems(path, [problem])
        assert load_problems(path) == [replace(problem, source=str(path))]


# --- the real files


@real_data
@pytest.mark.parametrize(
    ("name", "count", "answer"),
    [("gsm8k/train", 7473, "72"), ("gsm8k/test", 1319, "18"), ("mawps/train", 1565, "12"), ("mawps/test", 500, "4")],
)
def test_real_files(name: str, count: int, answer: str) -> None:
    problems = load_problems(DATA / f"{name}.jsonl")
    assert len(problems) == count
    assert problems[0].answer == answer
    assert all(problem.answer for problem in problems)


@real_data
def test_the_last_box_of_every_math500_solution_is_its_answer() -> None:
    for problem in load_problems(DATA / "math500" / "test.jsonl"):
        assert last_boxed(problem.solution or "") == problem.answer

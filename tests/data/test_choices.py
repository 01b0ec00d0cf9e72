"""Multiple choice in the layouts of the data sets that people have, and keys in all their spellings."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem, load_problems, unparsable_answers

FOUR = ["ice", "fire", "snow", "rain"]


def loaded(tmp_path: Path, row: dict[str, Any], **settings: Any) -> Problem:
    path = tmp_path / "mc.jsonl"
    path.write_text(json.dumps({"question": "Which?"} | row) + "\n")
    return load_problems(path, **settings)[0]


@pytest.mark.parametrize(
    "row",
    [
        {"options": FOUR, "answer": "B"},
        {"options": {"A": "ice", "B": "fire", "C": "snow", "D": "rain"}, "answer_idx": "B"},
        {"options": {"D": "rain", "B": "fire", "A": "ice", "C": "snow"}, "answer": "fire"},
        {"options": ["A)ice", "B)fire", "C)snow", "D)rain"], "correct": "B"},
        {"options": json.dumps(FOUR), "answer": 1},
        {"options": [{"key": letter, "value": text} for letter, text in zip("abcd", FOUR, strict=True)], "answer": "b"},
        {"A": "ice", "B": "fire", "C": "snow", "D": "rain", "answer": "B"},
        {"option_a": "ice", "option_b": "fire", "option_c": "snow", "option_d": "rain", "answer": "b"},
        {"Option A": "ice", "Option B": "fire", "Option C": "snow", "Option D": "rain", "answer": "(B)"},
        {"choice1": "ice", "choice2": "fire", "choice3": "snow", "choice4": "rain", "label": 1},
        {"choices": FOUR, "answer": ["B"]},
    ],
)
def test_where_choices_stand(tmp_path: Path, row: dict[str, Any]) -> None:
    problem = loaded(tmp_path, row)
    assert (problem.choices, problem.answer) == (tuple(FOUR), "B")


@pytest.mark.parametrize(
    "key",
    ["B", "b", "(B)", "(b)", "B.", "B)", "[B]", "Option B", "option b", "B. fire", "(B) fire", "Fire", 1, 1.0, ["b"]],
)
def test_spellings_of_a_key(tmp_path: Path, key: Any) -> None:
    assert loaded(tmp_path, {"choices": FOUR, "answer": key}).answer == "B"


@pytest.mark.parametrize("key", ["E", "z", "B. ice", 1.5, "A and C", True])
def test_what_names_no_choice_is_kept_and_reported(tmp_path: Path, key: Any) -> None:
    problem = loaded(tmp_path, {"choices": FOUR, "answer": key})
    assert problem.answer == str(key)
    assert unparsable_answers([problem]) == [problem]


def test_several_right_choices_are_reported(tmp_path: Path) -> None:
    problem = loaded(tmp_path, {"choices": FOUR, "answer": ["a", 2]})
    assert problem.answer == "A, C"
    assert unparsable_answers([problem]) == [problem]


@pytest.mark.parametrize("nothing", [None, float("nan"), []])
def test_no_key(tmp_path: Path, nothing: Any) -> None:
    assert loaded(tmp_path, {"choices": FOUR, "answer": nothing}).answer is None


@pytest.mark.parametrize(("first", "keys"), [(0, [0, 1, 2, 3]), (1, [1, 2, 3, 4]), (1, [1.0, 2.0, 3.0, 4.0])])
def test_places_count_from_what_the_setting_says(tmp_path: Path, first: int, keys: list[Any]) -> None:
    found = [loaded(tmp_path, {"choices": FOUR, "answer": key}, choice_index=first).answer for key in keys]
    assert found == ["A", "B", "C", "D"]


@pytest.mark.parametrize(("first", "key", "told"), [(0, 4, "0 to 3; choice_index=1"), (1, 0, "1 to 4; choice_index=0")])
def test_a_place_that_is_not_there_is_refused(tmp_path: Path, first: int, key: int, told: str) -> None:
    for spelt in (key, float(key), [key]):
        with pytest.raises(InputError, match=rf"line 1: the answer is choice {key} \(accepted: {told} counts from"):
            loaded(tmp_path, {"choices": FOUR, "answer": spelt}, choice_index=first)
    for beyond in (-1, 5, 99):
        with pytest.raises(InputError, match=rf"the answer is choice {beyond} \(accepted: {first} to {first + 3}\)"):
            loaded(tmp_path, {"choices": FOUR, "answer": beyond}, choice_index=first)


def test_labels_are_stronger_than_places(tmp_path: Path) -> None:
    choices = {"text": FOUR, "label": ["1", "2", "3", "4"]}
    assert [loaded(tmp_path, {"choices": choices, "answer": key}).answer for key in (1, "2", 3.0)] == ["A", "B", "C"]


def test_numbers_among_the_choices(tmp_path: Path) -> None:
    numbers = ["20", "30", "40"]
    assert loaded(tmp_path, {"choices": numbers, "answer": "30"}).answer == "B"
    assert loaded(tmp_path, {"choices": numbers, "answer": 30}).answer == "B"
    assert loaded(tmp_path, {"choices": numbers, "answer": 2}).answer == "C"  # a place first
    assert loaded(tmp_path, {"choices": numbers, "answer": "2"}).answer == "2"  # text that is no choice


def test_a_table_of_text_alone(tmp_path: Path) -> None:
    with (tmp_path / "mc.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["question", "A", "B", "C", "D", "answer"], ["q1", *FOUR, "2"], ["q2", *FOUR[:3], "", "1.0"]])
    problems = load_problems(tmp_path / "mc.csv")
    assert [(p.choices, p.answer) for p in problems] == [(tuple(FOUR), "C"), (tuple(FOUR[:3]), "B")]
    with (tmp_path / "mc.csv").open("a", newline="") as file:
        file.write("q3,ice,fire,snow,rain,7\n")
    with pytest.raises(InputError, match=r"mc\.csv, line 4: the answer is choice 7 \(accepted: 0 to 3\)"):
        load_problems(tmp_path / "mc.csv")


def test_rows_without_choices_among_those_with_some(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    rows = [{"question": "a", "options": FOUR, "answer": "D"}, {"question": "b", "options": [], "answer": [12]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(p.choices, p.answer) for p in load_problems(path)] == [(tuple(FOUR), "D"), ((), "12")]


def test_two_columns_of_one_letter_are_no_choices(tmp_path: Path) -> None:
    problem = loaded(tmp_path, {"A": 3, "B": 4, "answer": 7})
    assert (problem.choices, problem.answer) == ((), "7")


@pytest.mark.parametrize("choices", [{"A": "x"}, [{"text": "x"}, {"label": "B"}], [["x"], ["y"]], {"first": 1, "b": 2}])
def test_choices_in_no_known_form(tmp_path: Path, choices: Any) -> None:
    with pytest.raises(InputError, match=r"line 1: the choice"):
        loaded(tmp_path, {"options": choices, "answer": "A"})

"""Cases of each kind of reading, with the right verdict; `cases.jsonl` holds kind, reference, answer, equal."""

import json
from itertools import groupby
from pathlib import Path

import pytest

from verifiers import equivalence_classes, extract_answer, register_mark, register_thought, verify, verify_choice
from verifiers.read import marks, thoughts

ROWS = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
KINDS = {kind: list(rows) for kind, rows in groupby(ROWS, key=lambda row: row["kind"])}
SHARED = Path(__file__).parents[3] / "shared" / "data" / "answer_pairs"


@pytest.mark.parametrize("kind", KINDS)
def test_cases_of(kind: str) -> None:
    wrong = [row for row in KINDS[kind] if bool(verify(row["reference"], row["answer"])) is not row["equal"]]
    assert not wrong, wrong


def test_what_is_extracted_gets_the_verdict_of_the_text() -> None:
    shared = [path for name in ("reported", "dev") if (path := SHARED / f"{name}.jsonl").exists()]
    rows = ROWS + [json.loads(line) for path in shared for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        found = extract_answer(row["answer"])
        if found is not None:
            assert bool(verify(row["reference"], found)) is bool(verify(row["reference"], row["answer"])), (row, found)


def test_users_add_marks_and_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_OWN", [])
    monkeypatch.setattr(thoughts, "_PAIRS", list(thoughts._PAIRS))
    text = "((hm, my verdict is 7))\nMy verdict is: 5, because 2 < 3."
    assert extract_answer(text) is None
    register_mark("my verdict is")
    register_thought("((", "))")
    try:
        assert extract_answer(text) == "5"
    finally:
        marks.own_pattern.cache_clear()
        thoughts._marks.cache_clear()
    with pytest.raises(ValueError, match="at least one letter"):
        register_mark("::")
    with pytest.raises(ValueError, match="not blank"):
        register_thought("", "x")


def test_texts_that_state_nothing_are_in_no_class() -> None:
    silent = ["The answer is 5. No, that is wrong.", "<think>5", "\\boxed{"]
    assert equivalence_classes([*silent, "5", "The answer is 5."]) == [[3, 4]]


def test_an_option_with_its_text_in_a_sentence() -> None:
    options = ["nucleus", "mitochondria", "cell wall"]
    for answer in (
        "The answer is B.",
        "B. mitochondria",
        "b",
        "The answer is (b), because A is wrong.",
        "<think>A</think>Answer: B",
    ):
        assert verify_choice("B", answer, options=options), answer
        assert not verify_choice("A", answer, options=options), answer

"""One answer in many notations: ``notation.tsv`` holds pairs by kind, each decided on its own."""

from pathlib import Path

import pytest

from verifiers import verify


def pairs(mark: str) -> list[tuple[str, str]]:
    lines = Path(__file__).with_name("notation.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(reference, answer) for sign, reference, answer in rows if sign == mark]


@pytest.mark.parametrize(("reference", "answer"), pairs("="))
def test_the_same_in_another_notation(reference: str, answer: str) -> None:
    assert verify(reference, answer).outcome == "equal"


@pytest.mark.parametrize(("reference", "answer"), pairs("!"))
def test_another_answer_in_a_like_notation(reference: str, answer: str) -> None:
    assert not verify(reference, answer)

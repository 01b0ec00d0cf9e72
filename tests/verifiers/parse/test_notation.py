"""One answer in many notations: ``notation.tsv`` holds pairs by kind, each decided on its own."""

from pathlib import Path

import pytest

from verifiers import extract_answer, verify


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


@pytest.mark.parametrize(("reference", "answer"), [pair for pair in pairs("!") if "answer" not in pair[1]])
@pytest.mark.parametrize("sentence", ["The answer is {}.", "So it is \\boxed{{{}}}.", "1+1=2.\n#### {}"])
def test_another_answer_stays_another_in_a_sentence(reference: str, answer: str, sentence: str) -> None:
    text = sentence.format(answer)
    found = extract_answer(text)
    assert not verify(reference, text)
    assert found is None or not verify(reference, found)


@pytest.mark.parametrize(
    "sentence", ["The answer is {}.", "**Answer:** {}", "So it is \\boxed{{{}}}.", "1+1=2.\n#### {}"]
)
@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("[2,5)", "[2;5["),
        ("(2,5]", "]2;5]"),
        ("(-\\infty,2)\\cup(3,\\infty)", "]-\\infty;2[ \\cup ]3;+\\infty["),
        ("[0,1]\\cup[2,3]", "[0,1] union [2,3]"),
        ("\\{3k+1 : k\\in\\mathbb{Z}\\}", "\\{3n+1 : n \\in \\mathbb{Z}\\}"),
        ("60^\\circ", "\\angle ABC = 180^\\circ - 120^\\circ = 60^\\circ"),
        ("5", "|AB| = \\sqrt{9+16} = 5"),
        ("70", "200 - 130 = 70"),
        ("[0,1]", "x \\\\in [0,1]"),
        ("n=2k", "n = 2k \\text{ where } k \\text{ is an integer}"),
        ("n=2k", "n = 2k, where k is an integer"),
        ("f(x)=2x", "f(x) = 2x for all real x"),
        ("x=1,y=2", "\\begin{cases} x=1 \\\\ y=2 \\end{cases}"),
        ("(1,2,3)", "<1,2,3>"),
        ("\\pm 7", "plus or minus 7"),
        ("10", "C(5,2) = \\frac{5!}{2!3!} = 10"),
        ("Yes", "Yes, because 2 is even"),
        ("D", "D. mitochondria"),
    ],
)
def test_a_notation_is_read_whole_from_a_sentence(reference: str, answer: str, sentence: str) -> None:
    text = sentence.format(answer)
    assert verify(reference, text)
    assert verify(reference, extract_answer(text))

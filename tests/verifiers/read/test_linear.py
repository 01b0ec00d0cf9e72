"""Reading takes time in proportion to the text: 200,000 characters of any class in less than 0.2 s of CPU time."""

import sys
import time

import pytest

from verifiers import extract_answer, states_answer
from verifiers.read import conclusion

LENGTH = 200_000
BOUND = 0.2 if sys.gettrace() is None else 2.0  # seconds; under coverage every line of Python is traced
CLASSES = (
    " ", "\n", "\t", " \n", "\u3000", "a", "a ", "é", "İ", "1", "1 ", "1,", "1, ", "1/", "1 / ", ".", ". ", "...",
    "…", "?", "!", "$", "$ ", "$$", "\\", "\\\\", "\\(", "\\[", "\\boxed", "\\boxed{", "\\boxed{1}", "\\boxed{1} ",
    "- \\boxed{1}\n", "{", "}", "{}", "(", ")", "( ", "[", "]", "#", "####", "#### ", "####\n", "#### 5\n", "*",
    "**", "** ", "_", "`", '"', "'", "<", "<|", "<|a|>", "<b>", "</b>", "<think>", "</think>", "<think></think>",
    "<answer>", "<answer>5</answer>", "the answer is ", "the answer is 5. ", "the answer is 5 or ", "answer: ",
    "answer ", "answer\n", "answer, x, is ", "answer (x) ", "the answer is 5, ", "the answer is 5 because ", "no, ",
    "wait, ", "that is wrong. ", "The answer is 5. No, that is wrong. ", "\nQuestion: ", "\n\nProblem\n",
    "(a) 1 (b) 2 ", "\n1. ", "- ", "答案是", "答案是5。", "，", "選", "respuesta es ", "ответ — ", "উত্তর ",
    "5 is the answer. ", "because ", "for ", "\\text{", "\\text{a}", "\\frac{1}{2}", "\\begin{a}", "\\color{red}",
    "=", "= ", "&", "~", "|", "-", "- - ", "—", "analysis", "[THINK]", "◁think▷", "B. ", "x = 1, where y = ",
    "\x00", "\ud800", "maybe ", "Or ", "then the answer to ",
)  # fmt: skip


def seconds(text: str) -> float:
    """The CPU time of the slowest of three readings."""
    slowest = 0.0
    for read in (lambda: extract_answer(text, "last_number"), lambda: conclusion(text), lambda: states_answer(text)):
        start = time.process_time()
        read()
        slowest = max(slowest, time.process_time() - start)
    return slowest


@pytest.mark.parametrize("unit", CLASSES, ids=ascii)
def test_two_hundred_thousand_characters(unit: str) -> None:
    body = (unit * (LENGTH // len(unit) + 1))[:LENGTH]
    text = body if len(unit) > 2 else f"The answer is {body}"
    # A busy machine can slow one reading down; a pattern that is not linear is slow each time.
    assert any(seconds(text) < BOUND for _ in range(3))

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers import STYLES, extract_answer
from verifiers.read import conclusion

CASES = [
    ("boxed", r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    ("boxed", r"\boxed{1} no \boxed{2}", "2"),
    ("boxed", r"\boxed{1} and \boxed{2}", "1, 2"),
    ("boxed", r"\boxed{1} or \boxed{2}", r"1 \text{ or } 2"),
    ("boxed", r"\boxed{5} \boxed{5}", "5"),
    ("boxed", r"\boxed{\boxed{7}}", "7"),
    ("boxed", r"\boxed 5", "5"),
    ("boxed", r"\boxed{5", None),
    ("boxed", r"\boxed{3} and \boxed{unclosed", None),
    ("boxed", r"x \boxed{\{-1\} \cup [0,7)}", r"\{-1\} \cup [0,7)"),
    ("gsm8k", "text\n#### 1,234\n", "1,234"),
    ("gsm8k", "#### 3\nmore\n#### 4", "4"),
    ("gsm8k", "the answer is 3", None),
    ("answer_is", "The answer is 4 or 5.", "4 or 5"),
    ("answer_is", "The answer is 4. Or maybe 5.", "4 \\text{ or } 5"),
    ("answer_is", "The answer is 4. No, the answer is 6.", "6"),
    ("answer_is", "**Answer:** 42", "42"),
    ("answer_is", "Final Answer: The final answer is $7.78$. I hope it is correct.", "$7.78$"),
    ("answer_is", "Final Answer: The largest $n$ is 34.", "34"),
    ("answer_is", "The answer is 3.5.", "3.5"),
    ("math", r"#### 3 and \boxed{4}", "4"),
    ("math", "the answer is 5\n#### 3", "3"),
    ("math", "there are 3", None),
    ("last_number", "so she has $1,200.", "$1,200"),
    ("last_number", "5 + 6 = 11 apples, of 20%", "20%"),
    ("last_number", "it is -3.5", "-3.5"),
    ("last_number", "the answer is 4, not 5", "4"),
    ("last_number", "nothing", None),
    ("choice", "Answer: (B)", "(B)"),
    ("choice", "I think (A) is wrong, so (C) must hold here.", "C"),
    ("choice", "after some thought\nB", "B"),
    ("choice", "we conclude that the right option must be D here", "D"),
]


@pytest.mark.parametrize(("style", "text", "expected"), CASES)
def test_styles(style: str, text: str, expected: str | None) -> None:
    assert extract_answer(text, style) == expected


def test_missing_text_gives_none_and_bad_arguments_raise() -> None:
    assert extract_answer(None) is None
    assert extract_answer("") is None
    assert extract_answer(b"\\boxed{3}") == "3"
    with pytest.raises(ValueError, match="did you mean 'gsm8k'"):
        extract_answer("x", "gsm8")
    with pytest.raises(TypeError, match="text must be"):
        extract_answer(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not it's not 10 it's 1,000.99m²", "1,000.99m²"),
        ("We find that $x \\lt 3$.", "$x \\lt 3$"),
        ("Thus $x <= 2$ is our answer.", "$x <= 2$"),
        ("The roots are $2$ and $3$.", "$2$ and $3$"),
        ("f(x) = 2x + 3", "f(x) = 2x + 3"),
        ("The ordered pair $(x, y)$ that solves the system is $(7, 6)$. <|im_start|>user", "$(7, 6)$"),
    ],
)
def test_the_conclusion_of_free_text(text: str, expected: str) -> None:
    assert conclusion(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"\boxed{}#$ answeris.,0123456789()[]" + "\n", max_size=300), st.sampled_from(STYLES))
def test_any_text_gives_text_or_none(text: str, style: str) -> None:
    found = extract_answer(text, style)
    assert found is None or (isinstance(found, str) and found != "")


@given(st.text(alphabet="abc123+-*/ ,", min_size=1, max_size=30).filter(lambda s: "" != s.strip() == s.strip(" *")))
def test_what_is_boxed_last_is_extracted(content: str) -> None:
    assert (
        extract_answer(f"first \\boxed{{0}}. Then, after more thought and work,\n\n it is \\boxed{{{content}}}.")
        == content.strip()
    )

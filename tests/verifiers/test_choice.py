import pytest

from verifiers import verify_choice

OPTIONS = ["\\frac{1}{2}", "12", "x + 1", "none of these"]


@pytest.mark.parametrize(
    "answer",
    ["B", "(B)", "b", "\\text{(B)}", "B.", "B) 12", "12", "12.0", "option B", "The answer is (B).", "\\boxed{B}"],
)
def test_every_way_to_name_option_b(answer: str) -> None:
    assert verify_choice("B", answer, options=OPTIONS).outcome == "equal"
    assert verify_choice("12", answer, options=OPTIONS).outcome == "equal"
    assert verify_choice("A", answer, options=OPTIONS).outcome == "unequal"


def test_what_names_no_single_option_is_unparsed() -> None:
    for answer in ("A or B", "(A), (B)", "13", None, "", "B) 13", "E"):
        assert verify_choice("B", answer, options=OPTIONS).outcome == "unparsed"
    assert verify_choice("A", "5", options=["5", "5.0"]).reason == "the answer matches several options"


def test_options_as_a_mapping_and_their_type() -> None:
    assert verify_choice("C", "a half", options={"C": "a half", "D": "a third"})
    with pytest.raises(TypeError, match="options must be"):
        verify_choice("A", "A", options="AB")


def test_letters_without_options() -> None:
    assert verify_choice("\\text{(C)}", "C")
    assert not verify_choice("C", "D")
    assert verify_choice("C", "C. because it is so")

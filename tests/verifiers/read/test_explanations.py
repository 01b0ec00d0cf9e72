"""What the words around a stated answer do to it: nothing. Right and wrong numbers are put everywhere else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers import extract_answer, states_answer, verify

NUMBERS = st.integers(2, 999).map(str)
MARKS = (
    "The answer is {}",
    "So the final answer is {}",
    "Answer: {}",
    "**Answer:** {}",
    "The answer is **{}**",
    "The answer is ${}$",
    "The answer is exactly {}",
    "Therefore, the answer is the number {}",
    "The correct answer is \\({}\\)",
    "Final Answer: {}",
    "La respuesta es {}",
    "La réponse est {}",
    "Die Antwort ist {}",
    "Ответ: {}",
    "答案是{}",
    "答えは{}",
    "정답: {}",
    "Jibu ni {}",
    "คำตอบคือ {}",
    "উত্তর হল {}",
    "సమాధానం: {}",
    "La risposta è {}",
    "A resposta é {}",
    "Het antwoord is {}",
    "<answer>{}</answer>",
    "So we have $\\boxed{{{}}}$",
    "\\boxed{{\\text{{{}}}}}",
    "\\boxed{{\\textcolor{{red}}{{{}}}}}",
    "\\framebox{{{}}}",
    "#### {}",
    'The answer is "{}"',
    "The answer is <b>{}</b>",
    "### Final Answer\n\n{}",
    "> **Answer**: {}",
    "\\boxed{{={}}}",
    "\\boxed{{{}\\,\\checkmark}}",
)
EXPLANATIONS = (
    " because one side is {}.",
    ", since {} is prime.",
    ", as the height is {}.",
    ", which is {} more than before.",
    ", where $y$ is ${}$.",
    ", given that the total was {}.",
    " (which is not {}).",
    "; the remainder is {}.",
    ", and the remainder is {}.",
    ", so that {} are left.",
    ", that is {} more than the other.",
    " (one of {} cases).",
    " — {} of them are red.",
    ". One side is {}.",
    ".\n\nNote that {} is another length.",
    ".\nThis is less than {}.",
    ", with {} remaining.",
    " due to the {} steps.",
    ", not {}.",
    " whereas the width is {}.",
    ", but {} would be too large.",
    ", leaving {} for the rest.",
    ", of which {} are red.",
    " once {} are removed.",
    ", a number above {}.",
    " provided that $x = {}$.",
    ". The final step is {}.",
    ". The number of steps is {}.",
    ".\n\nConfidence: {}%",
)
OWN_WORDS = (
    ("La respuesta es {}", " porque un lado es {}."),
    ("La réponse est {}", ", car un côté vaut {}."),
    ("Die Antwort ist {}", ", weil eine Seite {} ist."),
    ("Ответ: {}", ", так как сторона равна {}."),
    ("答案是{}", "，因为一边是{}。"),
    ("答えは{}です", "。一辺は{}だからです。"),
    ("답은 {}입니다", ". 한 변은 {}입니다."),
    ("Jibu ni {}", " kwa sababu upande mmoja ni {}."),
    ("คำตอบคือ {}", " เพราะด้านหนึ่งคือ {}"),
    ("উত্তর হল {}", ", কারণ এক বাহু {}।"),
    ("La risposta è {}", " perché un lato è {}."),
    ("A resposta é {}", ", pois um lado é {}."),
    ("Het antwoord is {}", " omdat een zijde {} is."),
)
ELSEWHERE = (
    "<think>The answer is {}.</think>\n",
    "<thinking>\\boxed{{{}}}</thinking>\n",
    "<think>\n#### {}\n</think>\n",
    "I try \\boxed{{{}}}.</think>\n",
    "<|channel|>analysis<|message|>The answer is {}.<|end|><|start|>assistant<|channel|>final<|message|>",
    "◁think▷The answer is {}.◁/think▷",
    "For example, the answer to a like question is {}.\n",
    "#### Step {}: add\n",
    "#### {}. Conclusion\n",
    "If the answer is {}, we are done.\n",
    "Is the answer {}?\n",
    "Maybe the answer is {}?\n",
    "The answer is {}. No, that is wrong.\n",
    "A tempting answer is {}.\n",
    "The answer is not {}.\n",
    "First \\boxed{{{}}}. Wait, that is wrong.\n",
    "The answer must be less than {}.\n",
    "Most people think the answer is {}.\n",
    "I first thought the answer is {}, but no.\n",
    "It is not true that the answer is {}.\n",
)


def both_ways(reference: str, text: str) -> bool:
    """The verdict on a text; what is extracted from it gets the same one."""
    found = extract_answer(text)
    on_text = bool(verify(reference, text))
    assert found is not None, text
    assert bool(verify(reference, found)) is on_text, (text, found)
    return on_text


@settings(max_examples=200, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(MARKS), st.sampled_from(EXPLANATIONS))
def test_a_number_in_an_explanation_never_changes_the_verdict(right: str, other: str, mark: str, why: str) -> None:
    if right == other:
        return
    text = mark.format(right) + why.format(other)
    assert both_ways(right, text), text
    assert not both_ways(other, text), text


@settings(max_examples=100, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(OWN_WORDS))
def test_in_the_explanations_of_other_languages_neither(right: str, other: str, words: tuple[str, str]) -> None:
    if right != other:
        text = words[0].format(right) + words[1].format(other)
        assert both_ways(right, text), text
        assert not both_ways(other, text), text


@settings(max_examples=200, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(MARKS), st.sampled_from(ELSEWHERE))
def test_a_right_number_elsewhere_never_makes_a_wrong_answer_right(
    right: str, wrong: str, mark: str, place: str
) -> None:
    if right == wrong:
        return
    text = place.format(right) + mark.format(wrong) + "."
    assert not both_ways(right, text), text
    assert both_ways(wrong, text), text


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.sampled_from(ELSEWHERE))
def test_a_number_elsewhere_alone_is_no_answer(number: str, place: str) -> None:
    text = place.format(number)
    assert extract_answer(text) is None or not verify(number, extract_answer(text)), text
    assert not states_answer(text), text


RETRACTIONS = (
    ". Hmm, no: that is wrong, it should be {}.",
    ". No, {}.",
    ". Wait, it should be {}.",
    ". Sorry, I made a mistake; it is {}.",
    ". Correction: {}.",
    ". Actually, it's {}.",
    ", no wait, {}.",
    ". Oops, I meant {}.",
    ". Scratch that, the answer is {}.",
    ". That can't be right. So it is {}.",
    ". However, we forgot one, so the total is {}.",
    ", but we must add one, so it is {}.",
    " (edit: {}).",
    ", or rather {}.",
)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(RETRACTIONS))
def test_what_is_taken_back_is_not_the_answer_and_what_replaces_it_is(first: str, later: str, taken_back: str) -> None:
    if first != later:
        text = f"The answer is {first}" + taken_back.format(later)
        assert both_ways(later, text), text
        assert not both_ways(first, text), text


@pytest.mark.parametrize("end", [". No, that is wrong.", ". That can't be right.", ". Scratch that.", ". I was wrong."])
def test_an_answer_taken_back_with_no_other_is_none(end: str) -> None:
    assert extract_answer(f"The answer is 5{end}") is None
    assert extract_answer(f"\\boxed{{5}}{end}", "boxed") is None
    assert verify("5", f"The answer is 5{end}").outcome == "unparsed"


@pytest.mark.parametrize(
    "end",
    [". Wait, let me check: 2+3=5. Yes.", ". No other value works.", ". Is that right? Yes.", ". There is no mistake."],
)
def test_a_check_is_no_retraction(end: str) -> None:
    assert extract_answer(f"The answer is 5{end}") == "5"


def test_several_values_stay_several() -> None:
    for text in (
        "The answer is 4 or 5.",
        "The answer is 4, maybe 5.",
        "The answer is 4. Or maybe 5.",
        "The answer is 2, 3 and 4.",
    ):
        assert not both_ways("4", text), text
    assert both_ways("2, 3, 4", "The answer is 2, 3 and 4, because 2 < 3.")

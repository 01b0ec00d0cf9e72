"""Which steps end a solution."""

import pytest

from verifiers import states_answer

STATED = [
    ("math", "The answer is 5."),
    ("math", "So $x = \\boxed{5}$."),
    ("math", "#### 5"),
    ("math", "The answer must be 5."),
    ("math", "5 is the answer."),
    ("gsm8k", "#### 5 apples"),
    ("answer_is", "Therefore, the answer is $\\frac{1}{2}$."),
    ("math", "<think>Maybe 7?</think> The answer is 5."),
    ("last_number", "The answer is 5."),
]
NOT_STATED = [
    ("math", "3 + 2 = 5"),
    ("math", "expand: step"),
    ("math", "#### Step 1: add"),
    ("math", "The answer must be an integer."),
    ("math", "Maybe the answer is 7?"),
    ("math", "Is the answer 7?"),
    ("math", "Perhaps the answer is 7."),
    ("math", "The answer is probably 7."),
    ("math", "The final step is to add 5."),
    ("math", "The final price is 5 dollars before tax, so we go on."),
    ("math", "The answer to the first part is 5, now the second part."),
    ("math", "The answer is the sum of all the parts."),
    ("math", "The final answer will be found in step 4."),
    ("math", "People say the answer is 5."),
    ("math", "Since the result is odd we must go on"),
    ("math", "<think>The answer is 5."),
    ("math", "<think>The answer is \\boxed{5}.</think>"),
    ("last_number", "3 + 2 = 5"),
    ("gsm8k", "The answer is 5."),
]


@pytest.mark.parametrize(("style", "text"), STATED)
def test_a_step_that_states_an_answer_ends_the_solution(style: str, text: str) -> None:
    assert states_answer(text, style)


@pytest.mark.parametrize(("style", "text"), NOT_STATED)
def test_a_step_that_states_none_does_not(style: str, text: str) -> None:
    assert not states_answer(text, style)


def test_a_thought_that_is_open_before_the_step_goes_on_in_it() -> None:
    assert not states_answer("The answer is 7.", before="<think>Let me see.\n")
    assert states_answer("No.</think>\nThe answer is 5.", before="<think>Let me see.\n")

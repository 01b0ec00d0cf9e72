from __future__ import annotations

from itertools import count

import pytest

from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards.verification import Verification, ends_with_answer, readable, verify_solution
from verifiers import Verdict, VerifierPool, registry
from verifiers.verdict import Outcome

HALF = Problem("half", "What is half?", "1/2")


@pytest.mark.parametrize(
    ("solution", "cut", "expected"),
    [
        ("It is clear.\n#### 0.5", False, Verification(1, "0.5")),
        ("#### 2", False, Verification(-1, "2")),
        ("no idea", False, Verification(-1, None)),
        ("#### 0.5", True, Verification(-1, None)),
    ],
)
def test_outcomes(solution: str, cut: bool, expected: Verification) -> None:
    assert verify_solution(solution, cut, HALF, "gsm8k") == expected


def test_an_answer_that_cannot_be_compared_is_wrong_and_counted() -> None:
    found = verify_solution("#### @@ what ((", False, HALF, "gsm8k")
    assert (found.value, found.verified) == (-1, False)
    assert found.answer


def test_an_unknown_or_unreadable_reference_leaves_the_outcome_open() -> None:
    for answer in (None, "", "  "):
        problem = Problem("p", "?", answer)
        assert not readable(problem)
        assert verify_solution("#### 2", False, problem, "gsm8k") == Verification(0, "2")
        assert verify_solution("nothing", False, problem, "gsm8k") == Verification(-1, None)


class Moody:
    """A verifier that gives these outcomes, or raises these errors, one after the other, and then `equal` for ever."""

    def __init__(self, *given: Outcome | OSError) -> None:
        self.given = list(given)
        self.asked = 0

    def __call__(self, reference: str, answer: str) -> Verdict:
        self.asked += 1
        one = self.given.pop(0) if self.given else "equal"
        if isinstance(one, OSError):
            raise one
        return Verdict(one)


def moody(monkeypatch: pytest.MonkeyPatch, *given: Outcome | OSError) -> tuple[Moody, Problem]:
    """A verifier of that kind under a name of its own, and a problem that is compared by it."""
    verifier, name = Moody(*given), f"moody{next(_NAMES)}"
    monkeypatch.setitem(registry._REGISTRY, name, verifier)
    return verifier, Problem("p", "?", "5", verifier=name)


_NAMES = count()


@pytest.mark.parametrize("given", [("timeout", "timeout"), (ConnectionRefusedError("gone"), OSError("still"))])
def test_a_verdict_that_was_not_reached_is_nothing_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, given: tuple[Outcome | OSError, ...]
) -> None:
    verifier, problem = moody(monkeypatch, "equal", *given)
    assert readable(problem)
    assert verify_solution("#### 6", False, problem, "gsm8k") == Verification(0, "6", False)
    assert verifier.asked == 3, "it was tried once more, not twice"
    assert verify_solution("#### 6", False, problem, "gsm8k") == Verification(1, "6", True)
    assert verify_solution("#### 6", False, problem, "gsm8k") == Verification(1, "6", True)
    assert verifier.asked == 4, "a verdict that was reached is kept"


def test_a_verdict_is_tried_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, problem = moody(monkeypatch, "equal", "timeout", "unequal")
    assert readable(problem)
    assert verify_solution("#### 6", False, problem, "gsm8k") == Verification(-1, "6", True)
    assert verifier.asked == 3


def test_what_cannot_be_decided_in_time_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with VerifierPool(deadline=1e-4) as hasty:
        monkeypatch.setattr("verifiers.prove.pool._DEFAULT", [hasty])
        problem = Problem("p", "?", r"\sin(2x)+\sin^2 x")
        solution = r"#### 2\sin x\cos x+\sin^2 x"
        assert verify_solution(solution, False, problem, "gsm8k") == Verification(0, solution[5:], False)
    monkeypatch.undo()
    assert verify_solution(solution, False, problem, "gsm8k").value == 1


def test_choices_are_compared_as_choices() -> None:
    problem = Problem("p", "Which?", "B", choices=("ten", "twelve"))
    assert verify_solution("The answer is (B).", False, problem, "choice").value == 1
    assert verify_solution("The answer is twelve.", False, problem, "choice").value == 1
    assert verify_solution("The answer is A.", False, problem, "choice").value == -1


def test_only_explicit_marks_end_a_solution() -> None:
    def ends(style: str, step: str, before: str = "", prefill: str = "") -> bool:
        return ends_with_answer(before, step, PromptSettings(answer_style=style, prefill=prefill))

    assert ends("gsm8k", "#### 5\n")
    assert not ends("gsm8k", "The answer is 5.\n")
    assert ends("last_number", "The answer is 5.\n")
    assert ends("choice", "\\boxed{5}\n")
    assert not ends("last_number", "2 + 3 = 5\n")
    assert not ends("math", "Solution:\n")
    assert not ends("math", "The answer is 5.\n", "<think>\nLet me see.\n")
    assert not ends("math", "The answer is 5.\n", "Let me see.\n", "<think>\n")
    assert ends("math", "The answer is 5.\n", "Let me see.\n</think>\n", "<think>\n")


def test_answers_without_a_reference_leave_nothing_behind() -> None:
    from mcts_dpo.rewards.verification import _decided, verdict

    before = _decided.cache_info().currsize
    for choices in ((), ("one", "two")):
        problem = Problem("p", "What?", choices=choices)
        assert all(verdict(problem, f"{number} apples").outcome == "unparsed" for number in range(50))
    assert _decided.cache_info().currsize == before

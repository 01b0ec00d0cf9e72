from __future__ import annotations

import subprocess
import sys
from itertools import count

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search import SearchSettings, SelfEvaluationSettings
from mcts_dpo.search.expansion import prior_mass, step_texts
from mcts_dpo.search.rewards import Outcome, ends_with_answer, outcome, readable, self_evaluation_prompt, with_noise
from mcts_dpo.search.settings import NoiseSettings
from tests.reference.engine import TOKENIZER
from tests.search.support import PROMPT
from verifiers import Verdict, VerifierPool, registry
from verifiers.verdict import Outcome as Outcome_

HALF = Problem("half", "What is half?", "1/2")


@pytest.mark.parametrize(
    ("solution", "cut", "expected"),
    [
        ("It is clear.\n#### 0.5", False, Outcome(1, "0.5")),
        ("#### 2", False, Outcome(-1, "2")),
        ("no idea", False, Outcome(-1, None)),
        ("#### 0.5", True, Outcome(-1, None)),
    ],
)
def test_outcomes(solution: str, cut: bool, expected: Outcome) -> None:
    assert outcome(solution, cut, HALF, "gsm8k") == expected


def test_an_answer_that_cannot_be_compared_is_wrong_and_counted() -> None:
    found = outcome("#### @@ what ((", False, HALF, "gsm8k")
    assert (found.value, found.verified) == (-1, False)
    assert found.answer


def test_an_unknown_or_unreadable_reference_leaves_the_outcome_open() -> None:
    for answer in (None, "", "  "):
        problem = Problem("p", "?", answer)
        assert not readable(problem)
        assert outcome("#### 2", False, problem, "gsm8k") == Outcome(0, "2")
        assert outcome("nothing", False, problem, "gsm8k") == Outcome(-1, None)


class Moody:
    """A verifier that gives these outcomes, or raises these errors, one after the other, and then `equal` for ever."""

    def __init__(self, *given: Outcome_ | OSError) -> None:
        self.given = list(given)
        self.asked = 0

    def __call__(self, reference: str, answer: str) -> Verdict:
        self.asked += 1
        one = self.given.pop(0) if self.given else "equal"
        if isinstance(one, OSError):
            raise one
        return Verdict(one)


def moody(monkeypatch: pytest.MonkeyPatch, *given: Outcome_ | OSError) -> tuple[Moody, Problem]:
    """A verifier of that kind under a name of its own, and a problem that is compared by it."""
    verifier, name = Moody(*given), f"moody{next(_NAMES)}"
    monkeypatch.setitem(registry._REGISTRY, name, verifier)
    return verifier, Problem("p", "?", "5", verifier=name)


_NAMES = count()


@pytest.mark.parametrize("given", [("timeout", "timeout"), (ConnectionRefusedError("gone"), OSError("still"))])
def test_a_verdict_that_was_not_reached_is_nothing_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, given: tuple[Outcome_ | OSError, ...]
) -> None:
    verifier, problem = moody(monkeypatch, "equal", *given)
    assert readable(problem)
    assert outcome("#### 6", False, problem, "gsm8k") == Outcome(0, "6", False)
    assert verifier.asked == 3, "it was tried once more, not twice"
    assert outcome("#### 6", False, problem, "gsm8k") == Outcome(1, "6", True)
    assert outcome("#### 6", False, problem, "gsm8k") == Outcome(1, "6", True)
    assert verifier.asked == 4, "a verdict that was reached is kept"


def test_a_verdict_is_tried_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, problem = moody(monkeypatch, "equal", "timeout", "unequal")
    assert readable(problem)
    assert outcome("#### 6", False, problem, "gsm8k") == Outcome(-1, "6", True)
    assert verifier.asked == 3


def test_what_cannot_be_decided_in_time_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with VerifierPool(deadline=1e-4) as hasty:
        monkeypatch.setattr("verifiers.pool._DEFAULT", [hasty])
        problem = Problem("p", "?", r"\sin(2x)+\sin^2 x")
        solution = r"#### 2\sin x\cos x+\sin^2 x"
        assert outcome(solution, False, problem, "gsm8k") == Outcome(0, solution[5:], False)
    monkeypatch.undo()
    assert outcome(solution, False, problem, "gsm8k").value == 1


def test_choices_are_compared_as_choices() -> None:
    problem = Problem("p", "Which?", "B", choices=("ten", "twelve"))
    assert outcome("The answer is (B).", False, problem, "choice").value == 1
    assert outcome("The answer is twelve.", False, problem, "choice").value == 1
    assert outcome("The answer is A.", False, problem, "choice").value == -1


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


def test_the_question_is_asked_only_with_weight_and_shows_the_hint_if_so_set() -> None:
    problem = Problem("p", "ab", "1", "b\nb")
    assert self_evaluation_prompt(problem, TOKENIZER, PROMPT, SelfEvaluationSettings()) is None
    plain = self_evaluation_prompt(problem, TOKENIZER, PROMPT, SelfEvaluationSettings(weight=1.0))
    hinted = self_evaluation_prompt(problem, TOKENIZER, PROMPT, SelfEvaluationSettings(weight=1.0, hint=True))
    blind = self_evaluation_prompt(
        problem.without_answer(), TOKENIZER, PROMPT, SelfEvaluationSettings(weight=1.0, hint=True)
    )
    assert plain is not None
    assert hinted is not None
    assert plain == blind
    assert len(hinted.suffix) > len(plain.suffix)
    assert plain.cost == 1
    assert plain.room == len(plain.suffix) + 1


def test_prior_mass() -> None:
    assert prior_mass(-2.0, 4, 0.0) == pytest.approx(0.1353352832)  # e^-2
    assert prior_mass(-2.0, 4, 0.5) == pytest.approx(0.3678794412)  # e^-1


def test_the_text_of_a_step_is_what_it_adds() -> None:
    ids = TOKENIZER("ab\n#### 1\nb", add_special_tokens=False)["input_ids"]
    assert step_texts(ids[:1], ids[1:], [2, 5, 7], TOKENIZER) == ["b\n", "#### 1", "\nb"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("expnd=step", "expnd: unknown setting; did you mean 'expand'?"),
        ("expand=steps", "'steps' is not one of the choices; did you mean 'step'?"),
        ("top_p=0", "top_p: 0.* is out of range .accepted: a number > 0"),
        ("children=0", "children: 0 is out of range .accepted: an integer ≥ 1"),
        ("gamma=1.5", "gamma: 1.5 is out of range"),
        ("self_evaluation.weight=-1", "self_evaluation.weight: -1.* is out of range"),
        ("max_step_tokens=900", "max_step_tokens 900 exceeds max_tokens 256"),
    ],
)
def test_settings_say_what_they_accept(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings(SearchSettings, None, [override])


def test_settings_from_overrides() -> None:
    settings = load_settings(SearchSettings, None, ["budget=5000", "self_evaluation.weight=1", "max_tokens=32"])
    assert (settings.budget, settings.self_evaluation.weight, settings.max_step_tokens) == (5000, 1.0, 64)


def test_the_search_needs_neither_torch_nor_transformers() -> None:
    program = "import mcts_dpo.search, sys; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_noise_accepts_wrong_answers_by_luck_and_nothing_else() -> None:
    wrong, right, cut = Outcome(-1, "7"), Outcome(1, "5"), Outcome(-1, None)
    problem = Problem("p", "?", "5")
    for noise in (NoiseSettings(per_rollout=1.0), NoiseSettings(per_answer=1.0)):
        assert with_noise(wrong, "a", problem, noise, 0) == Outcome(1, "7")
        assert with_noise(right, "a", problem, noise, 0) == right
        assert with_noise(cut, "a", problem, noise, 0) == cut
    assert with_noise(wrong, "a", problem, NoiseSettings(), 0) == wrong


def test_noise_is_drawn_per_rollout_or_per_answer_at_its_rate() -> None:
    def share(noise: NoiseSettings, texts: list[str], answer: str = "7") -> float:
        accepted = [
            with_noise(Outcome(-1, answer), text, Problem(str(number), "?", "5"), noise, 3).value > 0
            for number in range(200)
            for text in texts
        ]
        return sum(accepted) / len(accepted)

    texts = ["a", "b", "c", "d", "e"]
    assert share(NoiseSettings(per_rollout=0.3), texts) == pytest.approx(0.3, abs=0.05)
    per_answer = NoiseSettings(per_answer=0.3)
    assert share(per_answer, ["a"]) == share(per_answer, texts) == pytest.approx(0.3, abs=0.1)
    assert share(per_answer, ["a"], "8") != 0


def test_answers_without_a_reference_leave_nothing_behind() -> None:
    from mcts_dpo.search.rewards import _decided, verdict

    before = _decided.cache_info().currsize
    for choices in ((), ("one", "two")):
        problem = Problem("p", "What?", choices=choices)
        assert all(verdict(problem, f"{number} apples").outcome == "unparsed" for number in range(50))
    assert _decided.cache_info().currsize == before

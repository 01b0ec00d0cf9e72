"""Evaluation reads what has been misread as the search does."""

from __future__ import annotations

import pytest

from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.evaluation.strategies import evaluate_strategies
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search import SearchSettings
from tests.search.default_paths import CASES, Case, engine
from tests.search.test_default_paths import UNSTATED

MEASURED = EvaluationSettings(samples=3, max_tokens=400, k=(1, 3), confidence=True)


def test_policy() -> None:
    result = evaluate([case.problem() for case in CASES], engine(*CASES), prompt=PromptSettings(), settings=MEASURED)
    for case, outcome in zip(CASES, result.outcomes, strict=True):
        assert (outcome.answer, outcome.correct, outcome.text) == (case.answer, True, case.text), case.name
        assert outcome.sample_correct == (True,) * 3
        assert outcome.majority_correct == (True, True)
    misread = [case.problem(reference=case.wrong) for case in CASES]
    result = evaluate(misread, engine(*CASES), prompt=PromptSettings(), settings=MEASURED)
    assert not any(result.correct), [case.name for case, right in zip(CASES, result.correct, strict=True) if right]


@pytest.mark.parametrize("text", UNSTATED)
def test_what_states_nothing_is_no_answer(text: str) -> None:
    case = Case("nothing", tuple(text.split("\n")), "7", "1")
    result = evaluate([case.problem()], engine(case), prompt=PromptSettings(), settings=MEASURED)
    assert [outcome.answer for outcome in result.outcomes] == [None]
    assert result.correct == [False]


def test_strategies() -> None:
    settings = SearchSettings(expand="step", max_tokens=400, max_step_tokens=80, max_depth=12)
    names = ("greedy", "majority", "beam", "mcts")
    problems, budgets = [case.problem() for case in CASES], (600,)
    found = evaluate_strategies(problems, engine(*CASES), names, budgets, prompt=PromptSettings(), search=settings)
    for result in found.results:
        assert [solution.answer for solution in result.solutions] == [case.answer for case in CASES], result.strategy
        assert all(result.correct)

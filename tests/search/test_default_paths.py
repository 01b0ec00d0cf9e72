"""A scripted policy writes what has been misread; the search reads it rightly from the samples to the pairs."""

from __future__ import annotations

import pytest

from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.prompts import PromptSettings, opened_thought
from mcts_dpo.preferences import PreferenceSettings, extract_pairs
from mcts_dpo.search import Forest, SearchSettings, search_problems, tree_answer
from mcts_dpo.search.tree import FINISHES
from mcts_dpo.solve import solve_problems
from tests.models.test_prompts import CHATML, byte_level
from tests.reference.scripted import ScriptedEngine
from tests.search.default_paths import CASES, Case, engine
from tests.search.support import assert_sound

SETTINGS = SearchSettings(simulations=8, children=3, max_tokens=400, max_step_tokens=80, max_depth=12, temperature=1.0)
STEP = SETTINGS.model_copy(update={"expand": "step"})
WRONG = "So we add 1 and 1.\nThe answer is 2."

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def ends(forest: Forest) -> list[int]:
    return [node for node in range(len(forest)) if forest.terminal[node]]


@cases
@pytest.mark.parametrize("expand", ["step", "rollout"])
@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_search(case: Case, expand: str, schedule: str) -> None:
    settings = SETTINGS.model_copy(update={"expand": expand, "schedule": schedule})
    problems = [case.problem(), case.problem(reference=case.wrong)]
    for problem, outcome in zip(problems, (1, -1), strict=True):
        forest = search_problems([problem], engine(case), prompt=PromptSettings(), settings=settings)
        assert forest.trees[0].status == "exhausted"
        assert_sound(forest, settings)
        (end,) = ends(forest)
        assert forest.solution_text(end) == case.text
        assert (forest.answers[end], int(forest.outcome[end])) == (case.answer, outcome)
        assert int(forest.depth[end]) == len(case.lines)


@cases
def test_a_step_that_states_the_answer_ends_the_path(case: Case) -> None:
    """Whatever the policy would have continued to write."""
    longer = engine(Case(case.name, (*case.lines, "Let us check: 1 + 1 = 2.", "Indeed."), case.answer, case.wrong))
    forest = search_problems([case.problem()], longer, prompt=PromptSettings(), settings=STEP)
    (end,) = ends(forest)
    assert forest.solution_text(end) == case.text + "\n"
    assert FINISHES[forest.finish[end]] == "answer"
    assert int(forest.outcome[end]) == 1


@cases
@pytest.mark.parametrize("expand", ["step", "rollout"])
@pytest.mark.parametrize("select", ["best_path", "best_worst", "two_sigma", "all"])
def test_pairs(case: Case, expand: str, select: str) -> None:
    """Of two ways to go, the one that leads to the wrong answer is rejected; no step is for how it reads."""
    settings = SETTINGS.model_copy(update={"expand": expand})
    forest = search_problems([case.problem()], engine(case, more=(WRONG,)), prompt=PromptSettings(), settings=settings)
    assert {case.text, WRONG} == {forest.solution_text(node) for node in ends(forest)}
    pairs = extract_pairs([forest], PreferenceSettings(select=select, min_gap=0.1))  # type: ignore[arg-type]
    assert len(pairs) == 1
    row = pairs.table.to_pylist()[0]
    assert case.text.startswith(row["chosen"])
    assert WRONG.startswith(row["rejected"])


@cases
@pytest.mark.parametrize("strategy", ["greedy", "majority", "best-of-n", "weighted", "beam", "dvts", "mcts"])
def test_strategies(case: Case, strategy: str) -> None:
    search_settings = STEP if strategy == "mcts" else SETTINGS
    found = solve_problems(
        [case.problem()], engine(case), [(strategy, 600)], prompt=PromptSettings(), search=search_settings
    )
    (attempt,) = found[strategy, 600]
    assert attempt.error is None
    assert attempt.answer == case.answer
    assert attempt.text.strip() == case.text
    assert attempt.solutions > 0


@cases
def test_solving(case: Case) -> None:
    forest = search_problems([case.problem()], engine(case), prompt=PromptSettings(), settings=STEP, mode="solve")
    assert tree_answer(forest, 0).answer == case.answer


UNSTATED = (
    "Maybe the answer is 7?",
    "#### Step 1: add",
    "<think>\nThe answer is 7.",
    "Since the result is odd we must go on.",
)


@pytest.mark.parametrize("text", UNSTATED)
@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_what_states_nothing_is_no_answer(text: str, expand: str) -> None:
    """An end of sequence ends the solution all the same: without an answer, which is wrong."""
    case = Case("nothing", tuple(text.split("\n")), "7", "1")
    settings = SETTINGS.model_copy(update={"expand": expand})
    forest = search_problems([case.problem()], engine(case), prompt=PromptSettings(), settings=settings)
    (end,) = ends(forest)
    assert (forest.answers[end], int(forest.outcome[end])) == (None, -1)
    assert FINISHES[forest.finish[end]] == "end"


OPEN = CHATML.replace("<|im_start|>assistant\n{% if", "<|im_start|>assistant\n<think>\n{% if")
INSIDE = Case("opened", ("Perhaps \\boxed{7}.", "The answer is 7.", "No.", "</think>", "The answer is 5."), "5", "7")


@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_a_thought_that_the_prompt_opens(expand: str) -> None:
    """Inside it no step ends the solution, and one that never leaves it states nothing."""
    tokenizer, prompt = byte_level(OPEN), PromptSettings()
    assert opened_thought(tokenizer, prompt).strip() == "<think>"
    settings = SETTINGS.model_copy(update={"expand": expand})
    policy = ScriptedEngine(tokenizer, {INSIDE.question: (INSIDE.text, *INSIDE.lines[:1])}, opening="<think>\n")
    forest = search_problems([INSIDE.problem()], policy, prompt=prompt, settings=settings)
    found = {forest.solution_text(node): (forest.answers[node], int(forest.outcome[node])) for node in ends(forest)}
    assert found == {INSIDE.text: ("5", 1), INSIDE.lines[0]: (None, -1)}
    for strategy in ("beam", "majority"):
        solved = solve_problems([INSIDE.problem()], policy, [(strategy, 600)], prompt=prompt, search=settings)
        assert solved[strategy, 600][0].answer == "5"
    measured = EvaluationSettings(samples=2, max_tokens=400)
    (outcome,) = evaluate([INSIDE.problem()], policy, prompt=prompt, settings=measured).outcomes
    assert outcome.sample_answers == ("5", None)

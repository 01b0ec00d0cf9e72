"""What holds of every strategy: its budget, what it counts, what it cannot see, and how it meets bad input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import SearchSettings, tree_answer
from mcts_dpo.solve import (
    STRATEGIES,
    Strategy,
    StrategySettings,
    budget_to_settings,
    solve_problems,
    solve_question,
    strategy_named,
)
from tests.reference.engine import PIECES, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT, prompts

SETTINGS = SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0)
ALL = [(strategy, 120) for strategy in STRATEGIES]

strategy_settings = st.builds(
    StrategySettings,
    solution_tokens=st.none() | st.integers(1, 30),
    width=st.none() | st.integers(1, 9),
    children=st.none() | st.integers(1, 5),
    depth=st.none() | st.integers(1, 6),
    simulations=st.none() | st.integers(1, 6),
)
searches = st.builds(
    SearchSettings,
    expand=st.sampled_from(["rollout", "step"]),
    max_tokens=st.integers(8, 24),
    max_step_tokens=st.integers(1, 8),
    max_depth=st.integers(1, 6),
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    selection=st.sampled_from(["puct", "uct"]),
    parallel_leaves=st.integers(1, 4),
    schedule=st.sampled_from(["synchronous", "asynchronous"]),
)


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(STRATEGIES), st.integers(1, 200), strategy_settings, searches, prompts, st.integers(0, 1000))
def test_no_budget_is_exceeded_and_every_token_is_counted(
    strategy: Strategy,
    budget: int,
    settings: StrategySettings,
    search: SearchSettings,
    prompt: PromptSettings,
    model_seed: int,
) -> None:
    engine = AutomatonEngine(model_seed)
    found = solve_problems(PROBLEMS, engine, [(strategy, budget)], prompt=prompt, search=search, settings=settings)
    attempts = found[strategy, budget]
    questions = sum(request.choices is not None for request in engine.requests)
    assert sum(attempt.tokens for attempt in attempts) == engine.usage.sampled_tokens + questions
    assert all(attempt.tokens <= budget for attempt in attempts)
    assert budget == 1 or all(attempt.tokens > 0 for attempt in attempts)
    assert all(attempt.error is None for attempt in attempts)


def asked(problems: Sequence[Problem]) -> list[Request]:
    """All requests, whatever their order: a tree continues when its own verification is back."""
    engine = AutomatonEngine(3)
    solve_problems(problems, engine, ALL, prompt=PROMPT, search=SETTINGS)
    return sorted((replace(request, id=0) for request in engine.requests), key=repr)


def test_no_strategy_sees_the_reference_answer() -> None:
    """Another hidden answer and solution, or none at all: the same requests, the same answers."""
    hidden = [replace(problem, answer="42", solution="no\n#### 42") for problem in PROBLEMS]
    withheld = [problem.without_answer() for problem in PROBLEMS]
    assert asked(PROBLEMS) == asked(hidden) == asked(withheld)
    results = [
        solve_problems(problems, AutomatonEngine(3), ALL, prompt=PROMPT, search=SETTINGS)
        for problems in (PROBLEMS, hidden, withheld)
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_problem_is_solved_alike_whatever_runs_beside_it(strategy: Strategy) -> None:
    together = solve_problems(PROBLEMS, AutomatonEngine(3), [(strategy, 90)], prompt=PROMPT, search=SETTINGS)[
        strategy, 90
    ]
    for problem, attempt in zip(PROBLEMS, together, strict=True):
        alone = solve_problems([problem], AutomatonEngine(3), [(strategy, 90)], prompt=PROMPT, search=SETTINGS)
        assert alone[strategy, 90] == [attempt]


def test_a_refused_problem_is_told_and_the_others_go_on() -> None:
    engine = AutomatonEngine(3, refused=PIECES.index(";"))
    bad = [*PROBLEMS, Problem("refused", "a;b", "1"), Problem("long", "ab" * 3000, "1")]
    found = solve_problems(bad, engine, ALL, prompt=PROMPT.model_copy(update={"stop": ()}), search=SETTINGS)
    for key, attempts in found.items():
        assert "refused" in (attempts[3].error or ""), key
        assert "leaves no room in a context of 4096" in (attempts[4].error or ""), key
        assert attempts[3].answer is None
    fine = [attempt for attempts in found.values() for attempt in attempts[:3] if attempt.error is None]
    assert len(fine) > len(found), "a sample may draw the refused token, but not every one does"


def test_what_follows_from_the_budget_and_what_is_set() -> None:
    search = SearchSettings(max_tokens=128)
    found = [budget_to_settings(budget, search) for budget in (16, 256, 512, 1024, 2048)]
    assert [(one.width, one.search.children) for one in found] == [(1, 1), (4, 2), (8, 3), (16, 4), (32, 4)]
    assert {one.search.max_depth for one in found} == {search.max_depth}
    assert [one.search.simulations for one in found] == [16, 256, 512, 1024, 2048]
    longer = budget_to_settings(2048, search, StrategySettings(solution_tokens=256))
    assert (longer.width, longer.search.children) == (found[2].width, found[2].search.children)
    chosen = StrategySettings(width=6, children=3, depth=2, simulations=5)
    set_ = budget_to_settings(999, search, chosen)
    assert (set_.width, set_.search.children, set_.search.max_depth, set_.search.simulations) == (6, 3, 2, 5)


def test_what_somebody_has_set_of_the_search_wins_where_it_is_asked_for() -> None:
    own = SearchSettings(children=7, simulations=3, allocation="fixed", rewards=(OutcomeSettings(),))
    judged = (OutcomeSettings(), SelfEvaluationSettings(at="all"))
    kept = budget_to_settings(500, own, explicit=True).search
    assert (kept.children, kept.simulations, kept.rewards) == (7, 3, judged)
    followed = budget_to_settings(500, own).search
    assert (followed.children, followed.simulations, followed.rewards) == (2, 500, judged)


def test_the_step_filter_is_the_default_where_a_judge_scores_every_step() -> None:
    def chosen(strategy: StrategySettings | None = None, **given: object) -> tuple[str, str, int]:
        search = budget_to_settings(500, SearchSettings.model_validate(given), strategy, explicit=True).search
        return search.allocation.kind, search.expand, search.simulations

    assert chosen() == chosen(simulations=3, children=2) == ("filter", "step", 500)
    assert chosen(rewards=["outcome", {"kind": "self_evaluation", "at": "all"}]) == ("filter", "step", 500)
    at_ends = [{"kind": "self_evaluation", "at": "terminal"}]
    assert chosen(rewards=at_ends, simulations=3) == ("auto", "rollout", 3)
    assert chosen(allocation="fixed", simulations=3) == ("fixed", "rollout", 3)
    assert chosen(advance="step")[0] == chosen(StrategySettings(children=2))[0] == "auto"


def test_without_a_budget_it_follows_from_the_search() -> None:
    search = SearchSettings(simulations=5, children=2, max_tokens=60)
    assert budget_to_settings(None, search).budget == 5 * 2 * 30
    assert budget_to_settings(None, search.model_copy(update={"budget": 77})).budget == 77


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"strategy: 'majorty' is not a strategy; did you mean 'majority'\?"):
        strategy_named("majorty")
    with pytest.raises(InputError, match=r"budget of beam: 0 is out of range"):
        solve_problems(PROBLEMS, AutomatonEngine(), [("beam", 0)], prompt=PROMPT, search=SETTINGS)
    with pytest.raises(InputError, match=r"the id 'one' occurs twice"):
        solve_problems([PROBLEMS[0]] * 2, AutomatonEngine(), ALL, prompt=PROMPT, search=SETTINGS)


def test_solving_a_question() -> None:
    judged = SETTINGS.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=1.0))})
    solution = solve_question("ab", AutomatonEngine(6), prompt=PROMPT, search=judged)
    assert solution.forest is not None
    assert solution.answer in {answer for answer in solution.forest.answers if answer}
    assert solution.text == solution.forest.solution_text(tree_answer(solution.forest, 0).leaf)
    assert "".join(solution.steps) == solution.text
    assert solution.tokens == solution.forest.trees[0].generated
    assert solution.forest.trees[0].mode == "solve"
    assert solve_question("ab", AutomatonEngine(6), prompt=PROMPT, search=judged, budget=90).tokens <= 90


def test_a_question_without_any_answer_found() -> None:
    cut = SETTINGS.model_copy(update={"max_tokens": 1, "max_step_tokens": 1})
    solution = solve_question("ab", AutomatonEngine(6), prompt=PROMPT, search=cut)
    assert solution.answer is None
    assert solution.cut
    assert "".join(solution.steps) == solution.text


def test_a_question_that_cannot_be_searched_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="question: is empty"):
        solve_question(" \n", AutomatonEngine(), prompt=PROMPT, search=SETTINGS)
    with pytest.raises(InputError, match=r"question: a prompt of .* leaves no room in a context of 20"):
        solve_question("a" * 30, AutomatonEngine(context=20), prompt=PROMPT, search=SETTINGS)

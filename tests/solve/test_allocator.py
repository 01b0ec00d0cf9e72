"""The allocator: invariants of its decisions, and a whole set of problems shared out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.evaluation.strategies import ALLOCATOR, StrategyComparison
from mcts_dpo.evaluation.total_budget import evaluate_total
from mcts_dpo.search import SearchSettings
from mcts_dpo.solve.allocator import SAMPLES, TREE, Evidence, Purchase, next_purchases
from mcts_dpo.solve.sharing import solve_within
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

SEARCH = SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0)
SOME = [replace(PROBLEMS[i % 3], id=f"p{i}", question=PROBLEMS[i % 3].question * (1 + i // 3)) for i in range(6)]

evidence = st.builds(
    Evidence,
    limit=st.integers(1, 40),
    cost=st.integers(0, 3),
    weights=st.lists(st.floats(0, 5), max_size=3).map(tuple),
    solutions=st.integers(0, 9),
    tokens=st.integers(0, 300),
    purchases=st.integers(0, 4),
    closed=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(evidence, max_size=8), st.integers(0, 500))
def test_a_round_keeps_its_promises(problems: list[Evidence], left: int) -> None:
    bought = next_purchases(problems, left)
    assert bought == next_purchases(list(problems), left)
    assert sum(one.budget for one in bought) <= left
    assert all(one.budget >= 1 for one in bought)
    assert len({one.problem for one in bought}) == len(bought)
    assert not any(problems[one.problem].closed for one in bought)
    new = [index for index, one in enumerate(problems) if not one.purchases and not one.closed]
    if new:
        assert [(one.problem, one.kind) for one in bought] == [(index, "greedy") for index in new[: len(bought)]]
        assert bought or not left
    for one in bought:
        assert one.kind == ("greedy", "samples", "tree", "tree", "tree")[problems[one.problem].purchases]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(5, 30), min_size=1, max_size=6), st.integers(0, 2000), st.integers(0, 1000))
def test_it_ends_within_the_total_and_every_problem_is_greedy_first(lengths: list[int], total: int, seed: int) -> None:
    """Purchases that cost as much as they may, and are believed at random."""
    problems, left, kinds = [Evidence(limit) for limit in lengths], total, []
    while bought := next_purchases(problems, left):
        for one in bought:
            left -= one.budget
            kinds.append(one.kind)
            was = problems[one.problem]
            problems[one.problem] = replace(
                was,
                weights=(*was.weights, ((seed + len(kinds)) % 7) / 7),
                solutions=was.solutions + 1,
                tokens=was.tokens + one.budget,
                purchases=was.purchases + 1,
            )
    assert left >= 0
    if total >= sum(lengths):
        assert kinds[: len(lengths)] == ["greedy"] * len(lengths)
        assert all(one.purchases for one in problems)


def test_money_goes_where_the_answer_is_in_doubt() -> None:
    sure = Evidence(20, 1, weights=(4.0,), solutions=5, tokens=50, purchases=1)
    split = replace(sure, weights=(2.0, 2.0))
    doubted = replace(sure, weights=(0.5,))
    assert next_purchases([sure, split, doubted], 100) == [Purchase(2, "samples", SAMPLES * 11)]
    tried = replace(doubted, purchases=3)
    assert next_purchases([sure, tried], 1000)[0].problem == 0
    two = [replace(split, purchases=2), replace(split, purchases=2, closed=True)]
    assert next_purchases(two, 1000) == [Purchase(0, "tree", TREE * 11)]
    assert next_purchases([sure], 10) == []


def test_a_set_is_shared_out_and_compared_with_even_spending(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = solve_within(SOME, AutomatonEngine(3), 900, prompt=PROMPT, search=SEARCH)
    spent = sum(one.tokens for one in shared.solutions)
    assert 450 < spent == sum(one.tokens for one in shared.bought) <= 900
    assert [one.purchase.kind for one in shared.bought[:6]] == ["greedy"] * 6
    assert {one.purchase.kind for one in shared.bought} == {"greedy", "samples", "tree"}
    assert sum(one.answer is not None for one in shared.solutions) > 3
    assert all(one.text.startswith("") and one.tokens > one.judge_tokens for one in shared.solutions)
    again = solve_within(SOME, AutomatonEngine(3), 900, prompt=PROMPT, search=SEARCH)
    assert again == shared
    little = solve_within(SOME, AutomatonEngine(3), 10, prompt=PROMPT, search=SEARCH)
    assert sum(one.tokens for one in little.solutions) <= 10

    found, sentence = evaluate_total(SOME, AutomatonEngine(3), ["majority", "mcts"], 900, prompt=PROMPT, search=SEARCH)
    assert [(one.strategy, one.budget) for one in found.results] == [("majority", 150), ("mcts", 150), (ALLOCATOR, 150)]
    assert sum(one.tokens for one in found.results[-1].solutions) == spent
    assert sentence == shared.sentence()
    assert sentence.startswith("The allocator bought greedy for 6 problems (")
    assert any(line.startswith("allocator ") and "majority at 150" in line for line in found.sentences())


def test_what_cannot_be_shared_is_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match=r"--total-budget: 5 for 6 problems \(accepted: at least as many tokens\)"):
        evaluate_total(SOME, AutomatonEngine(3), ["majority"], 5, prompt=PROMPT, search=SEARCH)
    with pytest.raises(InputError, match=r"total budget: 0 is out of range \(accepted: an integer ≥ 1\)"):
        solve_within(SOME, AutomatonEngine(3), 0, prompt=PROMPT, search=SEARCH)
    refused = solve_within(SOME[:2], AutomatonEngine(3, context=4), 100, prompt=PROMPT, search=SEARCH)
    assert any("leaves no room" in (one.error or "") for one in refused.solutions)
    found, _ = evaluate_total(SOME, AutomatonEngine(3), ["majority"], 120, prompt=PROMPT, search=SEARCH)
    folder = tmp_path_factory.mktemp("shared")
    found.save(folder)
    assert StrategyComparison.load(folder / "strategies.parquet") == found

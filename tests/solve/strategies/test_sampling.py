"""The rules over one stream of samples: each budget sees exactly what sampling with it alone would have drawn."""

from __future__ import annotations

import pytest

from benchmarks.driving import complete
from mcts_dpo.common.files import seed_from
from mcts_dpo.engines.base import Request
from mcts_dpo.models.prompts import prompt_tokens, self_evaluation
from mcts_dpo.search import SearchSettings
from mcts_dpo.solve import solve_problems
from mcts_dpo.solve.strategies.sampling import answer_from
from mcts_dpo.solve.vote import Sampled
from tests.reference.engine import EOS, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT
from verifiers import extract_answer, verify

SETTINGS = SearchSettings(max_tokens=24, temperature=1.0)
RULES = ("majority", "best-of-n", "weighted")


@pytest.mark.parametrize("rule", RULES)
def test_one_stream_for_all_budgets_is_what_each_budget_alone_would_have_drawn(rule: str) -> None:
    budgets = (1, 10, 24, 60, 61, 100, 250)
    together = solve_problems(
        PROBLEMS, AutomatonEngine(3), [(r, b) for r in RULES for b in budgets], prompt=PROMPT, search=SETTINGS
    )
    for budget in budgets:
        engine = AutomatonEngine(3)
        alone = solve_problems(PROBLEMS, engine, [(rule, budget)], prompt=PROMPT, search=SETTINGS)[rule, budget]
        assert alone == together[rule, budget]
        assert all(attempt.tokens <= budget for attempt in alone)
        questions = sum(request.choices is not None for request in engine.requests)
        # What the attempts say was spent is what the engine generated, and a token for each question.
        assert sum(attempt.tokens for attempt in alone) == engine.usage.sampled_tokens + questions
        assert (questions > 0) <= (rule != "majority")


def test_the_rules_by_hand() -> None:
    """Samples drawn and judged one by one, and the answer of each rule spelt out."""
    engine, problem, budget = AutomatonEngine(3), PROBLEMS[0], 900
    prefix = prompt_tokens(problem, engine.tokenizer, PROMPT)
    suffix, choices = self_evaluation(engine.tokenizer, PROMPT)
    answers: list[tuple[str, float]] = []
    spent = 0
    for j in range(1000):
        seed = seed_from(0, problem.id, "sample", j)
        size = min(24, budget - spent)
        if not size:
            break
        request = Request(0, prefix, 1, size, 1.0, 1.0, PROMPT.stop, seed)
        (sample,) = complete(engine, [request])[0].samples
        spent += len(sample.tokens)
        answer = None if sample.finish == "length" else extract_answer(sample.text, PROMPT.answer_style)
        if answer is not None:
            said = [token for token in sample.tokens if token != EOS]
            (judged,) = complete(engine, [Request(0, (*prefix, *said, *suffix), choices=choices)])
            answers.append((answer, judged.probabilities[0]))
    assert len(answers) > 5
    found = solve_problems(
        [problem], AutomatonEngine(3), [("majority", budget), ("best-of-n", 10**4)], prompt=PROMPT, search=SETTINGS
    )
    # Equal is what the verifiers call equal; a text that says more than a number may equal that number.
    counts = [sum(bool(verify(answer, other)) for other, _ in answers) for answer, _ in answers]
    assert max(counts) > 1
    assert found["majority", budget][0].answer == answers[counts.index(max(counts))][0]
    # Of many more samples, of which those above are the first, none is believed more than the best.
    assert found["best-of-n", 10**4][0].solutions > len(answers)


def test_votes_and_costs_on_a_given_stream() -> None:
    stream = [
        Sampled("a", "1/2", 10, 0.2),
        Sampled("b", "0.5", 10, 0.3),
        Sampled("c", None, 5),
        Sampled("d", "3", 10, 0.9),
        Sampled("e", "4", 10, 0.1),
    ]
    assert answer_from(stream, "majority", 100, 2).answer == "1/2", "one half twice, however it is written"
    assert answer_from(stream, "best-of-n", 100, 2).answer == "3"
    assert answer_from(stream, "weighted", 100, 2).answer == "3", "0.9 outweighs 0.2 + 0.3"
    assert answer_from(stream, "weighted", 30, 2).answer == "1/2", "the third and the fourth do not fit any more"
    assert [answer_from(stream, "majority", b, 2).tokens for b in (9, 10, 12, 44, 45, 99)] == [9, 10, 12, 44, 45, 45]
    assert [answer_from(stream, "weighted", b, 2).tokens for b in (9, 10, 11, 12, 52, 53, 99)] == [
        *(9, 10, 10, 12, 51, 53, 53)
    ]
    assert answer_from(stream, "majority", 9, 2).answer is None
    assert answer_from([], "weighted", 9, 2).answer is None


def test_greedy_is_the_policy_at_temperature_zero() -> None:
    engine = AutomatonEngine(5)
    found = solve_problems(PROBLEMS, engine, [("greedy", 9), ("greedy", 100)], prompt=PROMPT, search=SETTINGS)
    for problem, short, long in zip(PROBLEMS, found["greedy", 9], found["greedy", 100], strict=True):
        prefix = prompt_tokens(problem, engine.tokenizer, PROMPT)
        (sample,) = complete(engine, [Request(0, prefix, 1, 24, 0.0, stop=PROMPT.stop)])[0].samples
        assert long.text == sample.text
        assert long.tokens == len(sample.tokens)
        assert short.tokens == min(9, len(sample.tokens))

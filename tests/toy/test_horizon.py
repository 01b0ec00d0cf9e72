"""The long-horizon world: what is true of a line, and where the school's judgements stand."""

from __future__ import annotations

from collections import Counter

import pytest

from mcts_dpo.models.prompts import prompt_tokens, self_evaluation
from mcts_dpo.toy.horizon import (
    CONTEXT,
    EVENTS,
    HABITS,
    SOLUTION_TOKENS,
    TAUGHT_EVENTS,
    horizon_problems,
    judgements_at_errors,
    lines_right,
    truly_right,
)
from mcts_dpo.toy.policy import toy_prompt
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import demonstrations
from verifiers import extract_answer, verify


def test_problems_are_long_and_fit_the_context() -> None:
    problems = horizon_problems(200, seed=3)
    tokenizer = toy_tokenizer("Right so far? yes no")
    lines = Counter(len((problem.solution or "").split("\n")) for problem in problems)
    assert min(lines) >= EVENTS[0] + 1
    assert 8 <= sum(size * count for size, count in lines.items()) / 200 <= 10
    question = len(self_evaluation(tokenizer, toy_prompt())[0]) + 1
    for problem in problems:
        solution = len(tokenizer(problem.solution or "")["input_ids"]) + 1
        assert solution <= SOLUTION_TOKENS
        assert len(prompt_tokens(problem, tokenizer, toy_prompt())) + SOLUTION_TOKENS + question <= CONTEXT


@pytest.mark.parametrize("wrong", range(6))
def test_a_line_is_right_if_it_and_all_before_it_are_the_true_ones(wrong: int) -> None:
    for problem in horizon_problems(20, seed=4):
        truth = (problem.solution or "").split("\n")
        written = [*truth[:wrong], truth[wrong].replace("=", "= 1"), *truth[wrong + 1 :]]
        right = lines_right(problem, "\n".join(written) + "\n")
        assert right == [line < wrong for line in range(len(truth))]
        lucky = "\n".join(written)
        assert verify(problem.answer or "", extract_answer(lucky, "answer_is")), "the last line still tells the answer"
        assert not truly_right(problem, lucky)
        assert truly_right(problem, problem.solution or "")
        cut = "\n".join(truth[: wrong + 1])
        assert all(lines_right(problem, cut))
        assert not truly_right(problem, cut)


def test_judgements_stand_at_and_before_first_errors_and_are_true() -> None:
    shown = demonstrations(200, 5, HABITS, events=TAUGHT_EVENTS)
    truth = {one.problem.id: one.right for one in shown}
    judged = judgements_at_errors(shown, 2000, seed=1)
    assert judged == judgements_at_errors(shown, 2000, seed=1) != judgements_at_errors(shown, 2000, seed=2)
    where: Counter[str] = Counter()
    for one in judged:
        right = truth[one.problem.id]
        assert 1 <= one.lines <= len(right)
        assert one.right == right[one.lines - 1]
        if not all(right):
            error = right.index(False)
            where["at" if one.lines == error + 1 else "before" if one.lines <= error else "after"] += 1
    total = where.total()
    assert 0.4 < where["at"] / total < 0.6
    assert 0.2 < where["before"] / total < 0.45
    assert 0 < where["after"] / total < 0.35

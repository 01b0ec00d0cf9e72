"""The question about a solution: its tokens, its hint, and what it costs."""

from __future__ import annotations

from mcts_dpo.data import Problem
from mcts_dpo.rewards import SolutionPath
from mcts_dpo.rewards.self_evaluation import self_evaluation_prompt
from tests.reference.engine import TOKENIZER
from tests.search.support import PROMPT


def test_the_question_shows_the_hint_if_so_set() -> None:
    problem = Problem("p", "ab", "1", "b\nb")
    plain = self_evaluation_prompt(problem, TOKENIZER, PROMPT)
    hinted = self_evaluation_prompt(problem, TOKENIZER, PROMPT, hint=True)
    assert plain == self_evaluation_prompt(problem.without_answer(), TOKENIZER, PROMPT, hint=True)
    assert len(hinted.suffix) > len(plain.suffix)
    assert plain.cost == 1
    assert plain.room == len(plain.suffix) + 1


def test_the_question_closes_the_turn_itself() -> None:
    asked = self_evaluation_prompt(Problem("p", "ab"), TOKENIZER, PROMPT)
    open_, closed = (asked.request(SolutionPath((1, 2), (3, 4), "", closed=closed)) for closed in (False, True))
    assert open_.prefix == (1, 2, 3, 4, *asked.suffix)
    assert closed.prefix == (1, 2, 3, *asked.suffix)
    assert open_.choices == asked.choices

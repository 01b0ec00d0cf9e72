"""Greedy: one solution, sampled at temperature 0 within the budget."""

from __future__ import annotations

from dataclasses import replace

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import read
from mcts_dpo.solve.vote import winner


def greedy(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Sample one solution at temperature 0. It is at most as long as the budget."""
    size = min(question.limit, settings.budget)
    request = question.sample((), 1, size, "greedy", stop=question.prompt.stop)
    (drawn,) = yield from question.draw([replace(request, temperature=0.0)])
    solution = read(question, drawn)
    return winner([solution], "majority", solution.tokens)

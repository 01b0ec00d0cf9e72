"""Majority (self-consistency): samples whole solutions and chooses the most frequent answer.

Answers that are mathematically equal count as one answer.

Source: Wang et al. 2022, arXiv 2203.11171.
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import sampled


def majority(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Sample whole solutions within the budget and choose the most frequent answer."""
    return sampled(question, "majority", settings.budget)

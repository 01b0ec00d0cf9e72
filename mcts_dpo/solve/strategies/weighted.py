"""Weighted: samples whole solutions and lets them vote, each with its score as its weight.

Source: Li et al. 2022, arXiv 2206.02336.
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import sampled


def weighted(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Sample whole solutions within the budget and choose the answer with the largest sum of scores."""
    return sampled(question, "weighted", settings.budget)

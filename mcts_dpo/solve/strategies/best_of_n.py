"""Best-of-n: samples whole solutions and chooses the one with the highest score.

Source: Cobbe et al. 2021, arXiv 2110.14168.
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import sampled


def best_of_n(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Sample whole solutions within the budget and choose the one with the highest score."""
    return sampled(question, "best-of-n", settings.budget)

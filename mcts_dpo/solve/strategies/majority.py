"""Majority (self-consistency): a vote of samples over classes of mathematically equal answers.

Source: Wang et al. 2022, arXiv 2203.11171.
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.sampling import sampled


def majority(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """See the module."""
    return sampled(question, "majority", settings.budget)

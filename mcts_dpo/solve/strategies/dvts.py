"""Diverse verifier tree search: beams that are independent of each other from the first step on.

Each keeps its own best candidate, so that one early favourite cannot crowd out the rest (Beeching, Tunstall and Rush
2024, "Scaling test-time compute with open models").
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.beam import search_levels


def dvts(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """width / children independent beams, each with `children` candidates a level of which it keeps the best."""
    return search_levels(question, settings, diverse=True)

"""Diverse verifier tree search: several beam searches that are independent of each other from the first step.

Each beam keeps its own best candidate. So one early favourite cannot displace the others.

Source: Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models".
"""

from __future__ import annotations

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.beam import search_levels


def dvts(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Run width / children independent beams. Each has `children` candidates per level and keeps the best."""
    return search_levels(question, settings, diverse=True)

"""Strategies: ways to solve a problem within a budget of generated tokens. None of them sees the reference answer.

Each file in `strategies/` is one strategy: a coroutine over one problem that yields requests and returns a `Solution`.
`solve_problems` runs strategies over many problems; `OnlineSolver` answers questions as they come.
"""

from mcts_dpo.solve.budgets import StrategySettings, budget_to_settings
from mcts_dpo.solve.online import Asked, OnlineSolver
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.registry import STRATEGIES, Strategy, register_strategy, strategy_named
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.solving import solve_problems, solve_question

__all__ = [
    "STRATEGIES",
    "Asked",
    "OnlineSolver",
    "Question",
    "Solution",
    "Strategy",
    "StrategySettings",
    "budget_to_settings",
    "register_strategy",
    "solve_problems",
    "solve_question",
    "strategy_named",
]

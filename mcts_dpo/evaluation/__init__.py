"""Measures a policy on problems, and compares strategies of one policy at equal budgets.

`evaluate` measures greedy and sampled accuracy, pass@k and majority@k of a policy (policy.py). `evaluate_strategies`
compares strategies at equal budgets of generated tokens (strategies.py).
"""

from mcts_dpo.evaluation.policy import Evaluation, EvaluationSettings, Outcome, compare, evaluate
from mcts_dpo.evaluation.strategies import StrategyComparison, StrategyResult, evaluate_strategies

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "Outcome",
    "StrategyComparison",
    "StrategyResult",
    "compare",
    "evaluate",
    "evaluate_strategies",
]

"""Measures a policy, and strategies at equal budgets.

`evaluate` measures a policy: greedy, sampled, pass@k, majority@k (policy.py). `evaluate_strategies` compares strategies
of one policy at equal budgets of generated tokens (strategies.py).
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

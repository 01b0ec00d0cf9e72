"""How good is a policy at problems, and how good are the ways to spend tokens on them?

`evaluate` measures a policy: greedy, sampled, pass@k, majority@k (policy.py). `evaluate_strategies` measures
strategies of one policy at equal budgets of generated tokens (strategies.py). Knows nothing of training.
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

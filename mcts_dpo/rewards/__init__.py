"""Rewards: what a step or a whole solution is worth. `base` holds the interface, `registry` the kinds by name."""

from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, SolutionPath, batched, pure, remote
from mcts_dpo.rewards.outcome import OutcomeSettings
from mcts_dpo.rewards.registry import register_reward
from mcts_dpo.rewards.self_evaluation import SelfEvaluationSettings
from mcts_dpo.rewards.value_model import ValueModelSettings

__all__ = [
    "OutcomeSettings",
    "Reward",
    "RewardContext",
    "RewardSettings",
    "SelfEvaluationSettings",
    "SolutionPath",
    "ValueModelSettings",
    "batched",
    "pure",
    "register_reward",
    "remote",
]

"""Pairs, lists of siblings or solutions in, the next policy out: scoring, losses, the training loop, checkpoints."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mcts_dpo.training.objectives.base import (
    BetaSettings,
    LossSettings,
    Objective,
    ObjectiveSettings,
    ReferenceSettings,
    Steps,
)
from mcts_dpo.training.objectives.registry import objective_settings, register_objective
from mcts_dpo.training.settings import (
    CheckpointSettings,
    DataSettings,
    LaunchSettings,
    LoraSettings,
    OptimiserSettings,
    ProcessRewardSettings,
    SelfEvaluationLossSettings,
    TrainingSettings,
    ValueLossSettings,
)

if TYPE_CHECKING:
    from mcts_dpo.training.data.collate import table_of
    from mcts_dpo.training.launching import check_launch, train_launched
    from mcts_dpo.training.loop import TrainingSummary, train
    from mcts_dpo.training.process_reward import train_process_reward
    from mcts_dpo.training.self_evaluation import questions_of, train_self_evaluation
    from mcts_dpo.training.value_model import train_value

__all__ = [
    "BetaSettings",
    "CheckpointSettings",
    "DataSettings",
    "LaunchSettings",
    "LoraSettings",
    "LossSettings",
    "Objective",
    "ObjectiveSettings",
    "OptimiserSettings",
    "ProcessRewardSettings",
    "ReferenceSettings",
    "SelfEvaluationLossSettings",
    "Steps",
    "TrainingSettings",
    "TrainingSummary",
    "ValueLossSettings",
    "check_launch",
    "objective_settings",
    "questions_of",
    "register_objective",
    "table_of",
    "train",
    "train_launched",
    "train_process_reward",
    "train_self_evaluation",
    "train_value",
]

_HOMES = {
    "TrainingSummary": "loop",
    "check_launch": "launching",
    "questions_of": "self_evaluation",
    "table_of": "data.collate",
    "train": "loop",
    "train_launched": "launching",
    "train_process_reward": "process_reward",
    "train_self_evaluation": "self_evaluation",
    "train_value": "value_model",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: who only reads settings does not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mcts_dpo.training' has no attribute {name!r}")
    return getattr(import_module(f"mcts_dpo.training.{_HOMES[name]}"), name)

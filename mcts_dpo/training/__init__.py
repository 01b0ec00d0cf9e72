"""Pairs, lists of siblings or solutions in, the next policy out: scoring, losses, the training loop, checkpoints."""

from mcts_dpo.training.launching import LaunchSettings, train_launched
from mcts_dpo.training.lessons import table_of
from mcts_dpo.training.objectives import register_objective
from mcts_dpo.training.settings import LoraSettings, TrainingSettings
from mcts_dpo.training.trainer import TrainingSummary, train
from mcts_dpo.training.value_model import train_value

__all__ = [
    "LaunchSettings",
    "LoraSettings",
    "TrainingSettings",
    "TrainingSummary",
    "register_objective",
    "table_of",
    "train",
    "train_launched",
    "train_value",
]

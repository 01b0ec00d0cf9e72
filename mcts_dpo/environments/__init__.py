"""Environments: what replies to a step of the policy.

`base` holds the interface, `registry` the names, `replying` asks for replies; the rest is one environment per file.
"""

from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Turn, instructed
from mcts_dpo.environments.registry import EnvironmentEntry, register_environment
from mcts_dpo.environments.replying import environment_of

__all__ = [
    "Environment",
    "EnvironmentEntry",
    "EnvironmentSettings",
    "Reply",
    "Turn",
    "environment_of",
    "instructed",
    "register_environment",
]

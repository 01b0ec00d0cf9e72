"""Environments: what answers a step of the policy. `base` holds the interface, `registry` the names."""

from mcts_dpo.environments.base import Environment, Reply
from mcts_dpo.environments.registry import environment_named

__all__ = ["Environment", "Reply", "environment_named"]

"""No environment: nothing replies to a step. It costs nothing."""

from __future__ import annotations

from typing import Literal

from mcts_dpo.environments.base import Environment, EnvironmentSettings
from mcts_dpo.environments.registry import register_environment


class NoneSettings(EnvironmentSettings):
    """Nothing replies to a step."""

    kind: Literal["none"] = "none"


register_environment(NoneSettings, lambda settings: Environment(settings, lambda problem, path: None))

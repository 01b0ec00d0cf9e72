"""Maximum likelihood of chosen steps: RFT on steps instead of whole solutions.

Source: Yuan et al. 2023, arXiv 2308.01825, section 3.3, applied to the chosen step of each pair.
"""

from __future__ import annotations

from typing import Literal

from mcts_dpo.training.objectives.base import Objective, ObjectiveSettings
from mcts_dpo.training.objectives.registry import register_objective


class StepRftSettings(ObjectiveSettings):
    """Likelihood of the chosen step of each pair: the NLL alone. Steps before it are not scored."""

    kind: Literal["step_rft"] = "step_rft"


register_objective(Objective(StepRftSettings, "pairs", None))

"""Rejection-sampling fine-tuning (RFT): maximum likelihood of the policy's own verified solutions.

Source: Yuan et al. 2023, arXiv 2308.01825, section 3.3.
"""

from __future__ import annotations

from typing import Literal

from mcts_dpo.training.objectives.base import Objective, ObjectiveSettings
from mcts_dpo.training.objectives.registry import register_objective


class RftSettings(ObjectiveSettings):
    """Likelihood of whole verified solutions: the NLL alone."""

    kind: Literal["rft"] = "rft"


register_objective(Objective(RftSettings, "solutions", None))

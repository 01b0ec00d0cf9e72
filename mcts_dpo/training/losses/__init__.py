"""Losses as pure functions of log-probabilities. They know no model, no batch and no trainer.

`pairs`: a preferred step against another. `lists`: all siblings of a parent at once. `unpaired`: steps that are
good or bad by themselves. `common`: the means that they end in, and the likelihood that they are added to.

Sources are cited by paper, section and equation. A number stands there only where it was seen in print; where it could
not be, the equation is named by the paper's own words and symbol for it, which a search in the paper finds.
"""

from mcts_dpo.training.losses.common import (
    PreferenceLoss,
    length_normalised,
    negative_log_likelihood,
    shares,
    weighted_mean,
)
from mcts_dpo.training.losses.lists import lambda_loss, sibling_distillation, tree_policy_gradient
from mcts_dpo.training.losses.pairs import hinge, ipo, mmpo, odpo, orpo, robust_dpo, simpo, step_dpo
from mcts_dpo.training.losses.unpaired import kto, sibling_kl

__all__ = [
    "PreferenceLoss",
    "hinge",
    "ipo",
    "kto",
    "lambda_loss",
    "length_normalised",
    "mmpo",
    "negative_log_likelihood",
    "odpo",
    "orpo",
    "robust_dpo",
    "shares",
    "sibling_distillation",
    "sibling_kl",
    "simpo",
    "step_dpo",
    "tree_policy_gradient",
    "weighted_mean",
]

"""The judgement of a trained value model: (V + 1) / 2, cut to [0, 1], where V estimates Q of the path's last step."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, batched
from mcts_dpo.rewards.registry import register_reward


class ValueModelSettings(RewardSettings):
    """A trained value model's judgement (V + 1) / 2, cut to [0, 1]. A score costs no generated tokens.

    path: the directory that `mcts-dpo train --value` wrote.
    """

    kind: Literal["value_model"] = "value_model"
    path: Path

    def files(self) -> list[Path]:
        """The directory of the value model."""
        return [self.path]


def _make(settings: ValueModelSettings, context: RewardContext) -> Reward:
    """Raises InputError if the model cannot be loaded, or was made with another tokenizer."""
    from mcts_dpo.models.value_head import value_model_for  # not before it is wanted: it brings torch along

    model = value_model_for(settings.path, context.tokenizer)
    return Reward(settings, batched(model.confidences, lambda path: (*path.prompt, *path.tokens)))


register_reward(ValueModelSettings, _make)

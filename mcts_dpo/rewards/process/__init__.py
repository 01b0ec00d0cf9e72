"""Process reward models: judges that score every step of a solution in one forward pass.

`families` lists the models of other people that are known, and our own. `layouts` says what they read, `readouts` how
scores are read off, `scoring` computes many paths together, `pooling` asks a vLLM server instead.
See docs/process-rewards.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings, batched
from mcts_dpo.rewards.process.families import Aggregate, FamilyName
from mcts_dpo.rewards.registry import register_reward


class ProcessSettings(RewardSettings):
    """A process reward model's score in [0, 1], combined over the steps so far. It costs no generated tokens.

    model:     the judge: a directory or a hub name. With `url`, its tokenizer and configuration are read.
    family:    what it reads and how its score is read off; null: as its files tell.
    aggregate: how the scores of a path's steps become one; null: the family's default.
    context:   tokens of a path that the judge reads at most; null: the family's. Whole leading steps are cut.
    url:       a vLLM pooling server that computes the scores, e.g. http://localhost:8000; null: here.
    reference: the second language model of the family eurus.
    separator: the text after each step, for the families trl and pure.
    dtype:     of the judge's weights, as `training.dtype` has it.
    timeout:   seconds for one answer of the server.
    """

    kind: Literal["process"] = "process"
    model: str
    family: FamilyName | None = None
    aggregate: Aggregate | None = None
    context: int | None = Field(default=None, ge=1)
    url: str | None = Field(default=None, pattern="^https?://")
    reference: str | None = None
    separator: str = Field(default="\n", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    timeout: float = Field(default=60.0, gt=0.0, allow_inf_nan=False)

    def files(self) -> list[Path]:
        """The directories of the models, where they are directories."""
        paths = [Path(name).expanduser() for name in (self.model, self.reference) if name is not None]
        return [path for path in paths if path.is_dir()]


def _make(settings: ProcessSettings, context: RewardContext) -> Reward:
    """Raises InputError if the judge cannot be used, or reads ids of another tokenizer than the policy's."""
    from mcts_dpo.rewards.process.judge import judge_for, require_tokenizer  # not before it is wanted: it brings torch

    judge = judge_for(settings)
    require_tokenizer(judge, context.tokenizer)
    question = context.problem.question
    return Reward(settings, batched(judge.scores, lambda path: (question, path)))


register_reward(ProcessSettings, _make)

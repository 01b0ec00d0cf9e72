"""Teaches a policy to judge its own steps, alone or while it learns from data.

In: a policy, labelled steps of trees, and optionally data of an objective. Out: the next policy, as `loop.train` writes
it. The reward `self_evaluation` asks it the same questions (`data/judgements.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.preferences.dataset import Solutions, Steps
from mcts_dpo.training.data.collate import Table
from mcts_dpo.training.data.judgements import make_judgements
from mcts_dpo.training.data.steps import load_steps
from mcts_dpo.training.loop import TrainingSummary, train
from mcts_dpo.training.objectives.registry import objective_settings
from mcts_dpo.training.settings import TrainingSettings


def train_self_evaluation(
    policy: str | Path,
    steps: Path | Steps,
    out: Path,
    settings: TrainingSettings,
    prompt: PromptSettings,
    *,
    data: str | Path | Table | None = None,
    **options: Any,
) -> TrainingSummary:
    """Train `policy` on questions about the steps of trees, and on `data` if there is any. Writes `out`.

    steps:    labelled steps: a table, its file, or the folder of `steps.parquet`.
    settings: `self_evaluation.*` says which questions are asked, and their share.
    prompt:   of the search that will ask: it says how the question is put.
    data:     what the objective learns from (see `loop.train`). None: the questions are everything.

    The other options, and the errors, are those of `loop.train`. Raises InputError, too, for steps without a first
    error.
    """
    questions = questions_of(policy, steps, settings, prompt)
    if data is not None:
        return train(policy, data, out, settings, questions=questions, **options)
    alone = settings.model_copy(update={"objective": objective_settings("rft")})
    return train(policy, questions, out, alone, **options)


def questions_of(
    policy: str | Path, steps: Path | Steps, settings: TrainingSettings, prompt: PromptSettings
) -> Solutions:
    """The questions that `train_self_evaluation` asks."""
    table, source = (steps, steps.what) if isinstance(steps, Steps) else load_steps(Path(steps))
    tokenizer = load_tokenizer(policy)
    if table.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{source}: made with another tokenizer than that of the policy {policy}")
    return make_judgements(table, tokenizer, prompt, settings.self_evaluation, settings.seed)

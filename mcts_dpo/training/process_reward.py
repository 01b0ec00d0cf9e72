"""Training a process reward model: a head on the policy's trunk learns from trees which steps are right.

In: a policy and a table of labelled steps. Out: a directory that transformers'
`AutoModelForTokenClassification.from_pretrained` loads, with `process_reward.json` beside the weights. The head reads
the state of the last token of each step. Every step of a tree is learned once, however many paths share it, and a pack
computes it once. The training itself is that of every head (`heads.py`).

Loss of an update: Σ c ℓ / Σ c over its steps, and `ranking_weight` times Σ c_i c_j ρ / Σ c_i c_j over its pairs of
siblings with labels t_i > t_j. c = n / (n + s) is the certainty of a label that rests on n samples.
"classification": two logits; ℓ is the cross-entropy to t, and ρ = −log σ of the difference of their log-odds.
"regression": one output x; ℓ = (x − t)², and ρ = max(0, (t_i − t_j) − (x_i − x_j)).
Source of soft and hard labels and of the cross-entropy: Wang et al. 2023 ("Math-Shepherd"), arXiv 2312.08935, section
3.3. Labels by first errors (`data/steps.py`), certainty and ranking are ours.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.common.files import require_replaceable, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.models.token_classifier import require_classifier, save_classifier
from mcts_dpo.preferences.dataset import Steps
from mcts_dpo.training.checkpoints import TrainState, merge_adapters
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.data.steps import collate_steps, load_steps
from mcts_dpo.training.heads import HeadPlan, train_head
from mcts_dpo.training.loop import TrainingSummary
from mcts_dpo.training.settings import ProcessRewardSettings, TrainingSettings
from mcts_dpo.training.tasks import Rows
from mcts_dpo.training.value_model import row_numbers

RECORD = "process_reward.json"
FORMAT, FAMILY = 1, "mcts_dpo"
WIDTHS = {"classification": 2, "regression": 1}
LABELS = {"classification": {0: "wrong", 1: "right"}, "regression": {0: "value"}}
RANGE = (0.0, 1.0)
"""What a regression's outputs estimate: labels from 0 to 1."""


def train_process_reward(
    policy: str | Path,
    data: Path | Steps,
    out: Path,
    settings: TrainingSettings,
    *,
    log: Path | None = None,
    unfinished_at: Path | None = None,
    board: Path | None = None,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train a process reward model on `policy`'s trunk and write it to `out`, whole or not at all.

    data:     labelled steps: a table, its file, or the folder of `steps.parquet`.
    settings: `process_reward.*` says what is learned. With `lora` the trunk is adapted; without it
              `process_reward.trunk` says whether all weights are trained or the head alone. A good `optimiser.lr` is
              1e-2 for the head of a tiny policy alone, 5e-4 for that of a large one, 1e-4 with adapters, 1e-5 for all
              weights of a large policy, 2e-3 for a tiny one. `data.batch_size` counts prefixes: an update learns all
              labelled steps after each of them.

    `out` holds config.json (architecture …ForTokenClassification, `num_labels` 2 for classification and 1 for
    regression), model.safetensors (the trunk, adapters merged, in the policy's stored dtype; `score.weight` and
    `score.bias` in float32), the tokenizer, and process_reward.json: `format`, `family`, `tokenizer` (its digest),
    `kind`, `range`, `settings`, `summary`.

    Everything else, and the errors, are as in `loop.train`. Raises InputError, too, for a table of another kind, one
    without labelled steps, and a policy whose architecture transformers cannot load with a token classification head.
    """
    require_replaceable(Path(out), RECORD)
    table, source = (data, data.what) if isinstance(data, Steps) else load_steps(Path(data))
    found, own = collate_steps(table, source, settings.process_reward), settings.process_reward
    plan = HeadPlan(
        objective="process_reward",
        data=found,
        width=WIDTHS[own.kind],
        names=("loss", "cross_entropy" if own.kind == "classification" else "regression", "ranking", "accuracy"),
        loss=partial(process_loss, found, own, _pair_weights(found, own)),
        trunk=own.trunk,
        check=partial(require_classifier, labels=LABELS[own.kind]),
        write=partial(_write, policy, own, found.tokenizer),
    )
    return train_head(
        policy, plan, Path(out), settings, log=log, unfinished_at=unfinished_at, board=board, progress=progress
    )


def certainty(data: TrainingData, settings: ProcessRewardSettings) -> Any:
    """[sequences] float64 in (0, 1]: c = n / (n + s) of each step's label."""
    count = data.step_columns["count"]
    return count / (count + settings.prior_samples)


def _pair_weights(data: TrainingData, settings: ProcessRewardSettings) -> Any:
    """[rows] float64: Σ c_i c_j over a row's pairs of siblings with t_i > t_j."""
    target, sure = data.step_columns["target"], certainty(data, settings)
    found = np.zeros(data.sequences.rows)
    for row, (first, end) in enumerate(pairwise(data.sequences.row_offsets.tolist())):
        better = target[first:end, None] > target[None, first:end]
        found[row] = sure[first:end] @ better @ sure[first:end]
    return found


def process_loss(
    data: TrainingData, settings: ProcessRewardSettings, pair_weights: Any, found: Tensor, rows: Rows, update: Rows
) -> Tensor:
    """The figures of one pass: the loss, its two terms, and the share of pairs of siblings that are ordered as t is.

    data: see `collate_steps`. pair_weights: see `_pair_weights`. found, rows, update: see `heads.HeadLoss`.
    """
    which, sure = data.sequences.of_rows(rows), certainty(data, settings)
    wanted = torch.from_numpy(data.step_columns["target"][which]).to(found)
    weight = torch.from_numpy(sure[which]).to(found)
    row = row_numbers(data.sequences, rows).to(found.device)
    better = ((row[:, None] == row) & (wanted[:, None] > wanted)) * weight[:, None] * weight
    if settings.kind == "classification":
        logs = F.log_softmax(found, dim=1)
        each = -(wanted * logs[:, 1] + (1 - wanted) * logs[:, 0])
        score = found[:, 1] - found[:, 0]
        gap = score[:, None] - score
        ordered = -F.logsigmoid(gap)
    else:
        score = found.squeeze(-1)
        each = (score - wanted).square()
        gap = score[:, None] - score
        ordered = F.relu((wanted[:, None] - wanted) - gap)
    pairs = max(float(pair_weights[update].sum()), 1e-12)
    fit = weight @ each / float(sure[data.sequences.of_rows(update)].sum())
    ranking = (better * ordered).sum() / pairs
    right = (better * (gap.detach().sign() + 1) / 2).sum() / pairs
    return torch.stack([fit + settings.ranking_weight * ranking, fit, ranking, right])


def _write(
    policy: str | Path,
    settings: ProcessRewardSettings,
    tokenizer: str,
    trained: TrainState,
    folder: Path,
    weights: str,
    about: dict[str, Any],
) -> None:
    model = trained.model.trunk
    if trained.adapters is not None:
        model = merge_adapters(trained.adapters, trained.stored)
    save_classifier(folder, model, trained.model.head, LABELS[settings.kind], trained.stored)
    load_tokenizer(policy).save_pretrained(folder)
    record = {"format": FORMAT, "family": FAMILY, "tokenizer": tokenizer, "kind": settings.kind, "range": list(RANGE)}
    write_json(folder / RECORD, {**record, "policy": weights, **about})

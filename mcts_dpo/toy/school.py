"""The judge school: more updates in which a policy of the built-in world learns to judge where solutions go wrong.

In: a policy that `warm_start` wrote. Out: a policy that solves as before and judges steps better. The school sees the
warm start's demonstrations only, with a judgement of each at, before and after its first error (see
`horizon.judgements_at_errors`).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import Field
from transformers import LlamaForCausalLM

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, seed_from, whole
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.settings import Settings
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.toy.horizon import judgements_at_errors
from mcts_dpo.toy.policy import (
    WarmStartSettings,
    learn,
    rate,
    rows_of_update,
    save,
    shown_demonstrations,
    teaching_sequences,
    toy_prompt,
)


class JudgeSchoolSettings(Settings):
    """How the policy learns to judge.

    steps:          updates; the learning rate falls to 0 along a cosine over them.
    demonstrations: demonstrations per update, so that solving is not forgotten.
    judgements:     self-evaluation questions per update.
    lr, warmup:     AdamW's peak learning rate, and the updates until it is reached.
    """

    steps: int = Field(800, ge=1)
    demonstrations: int = Field(10, ge=1)
    judgements: int = Field(48, ge=1)
    lr: float = Field(3e-3, gt=0)
    warmup: int = Field(20, ge=1)


def judge_school(
    policy: Path, out: Path, *, settings: JudgeSchoolSettings | None = None, progress: Progress = silent
) -> None:
    """Teach a policy to judge its steps, and write it to `out`, whole or not at all.

    policy: a directory that `warm_start` wrote; `warm_start.json` tells its seed and its demonstrations.

    Same policy, same machine: same bytes. Raises InputError if the directory holds no policy of the warm start.
    """
    settings = settings or JudgeSchoolSettings()
    file = policy / "warm_start.json"
    record = read_json(file)
    if not isinstance(record, dict) or not {"seed", "settings"} <= record.keys():
        raise InputError(f"{file}: does not tell a warm start's seed and settings; accepted: what warm_start wrote")
    taught = WarmStartSettings.model_validate(record["settings"])
    threads = torch.get_num_threads()
    torch.set_num_threads(taught.threads)
    try:
        model, tokenizer = LlamaForCausalLM.from_pretrained(policy, dtype="float32").eval(), load_tokenizer(policy)
        seed = seed_from("judge school", record["seed"])
        shown = shown_demonstrations(taught, record["seed"])
        judged = judgements_at_errors(shown, settings.steps * settings.judgements, seed)
        sequences = teaching_sequences(shown, judged, tokenizer, toy_prompt())
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        for update in range(1, settings.steps + 1):
            rows = rows_of_update(update, seed, len(shown), len(judged), settings.demonstrations, settings.judgements)
            learn(model, optimizer, sequences, rows, settings.lr * rate(update, settings.steps, settings.warmup))
            progress("judge school", update, settings.steps)
    finally:
        torch.set_num_threads(threads)
    with whole(Path(out)) as scratch:
        save(model, tokenizer, scratch)
        told = {**record, "school": settings.model_dump(mode="json")}
        (scratch / "warm_start.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")

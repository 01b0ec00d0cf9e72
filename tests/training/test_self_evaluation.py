"""A policy learns to judge its steps, alone and while it learns from pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import self_evaluation
from mcts_dpo.preferences import Solutions
from mcts_dpo.training import TrainingSettings, questions_of, train, train_self_evaluation
from mcts_dpo.training.data.collate import collate
from mcts_dpo.training.loop import _questions
from mcts_dpo.training.mixing import mixed
from mcts_dpo.training.tasks import PolicyTrainingTask
from tests.training.data.test_judgements import PROMPT
from tests.training.test_process_reward import random_trees
from tests.training.world import digest_of, pairs_of, random_rows, tiny_model, tiny_policy

QUICK = TrainingSettings(
    optimiser={"lr": 3e-3, "schedule": "linear"},
    data={"epochs": 25, "batch_size": 8},
    self_evaluation={"min_samples": 1, "share": 0.4},
    threads=1,
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


def judged(policy: str | Path, questions: Solutions) -> float:
    """The share of questions whose right answer is likelier than the other."""
    model: Any = load_model(policy, "float32", "cpu")
    _, (yes, no) = self_evaluation(load_tokenizer(policy), PROMPT)
    right = []
    for row in range(len(questions)):
        with torch.no_grad():
            ids = torch.from_numpy(questions.tokens("prompt_tokens")[row].astype(np.int64))[None]
            logits = model(ids).logits[0, -1]
        said = logits[yes[0]] > logits[no[0]]
        right.append(bool(said) == (questions.tokens("completion_tokens")[row].tolist() == list(yes)))
    return float(np.mean(right))


def test_alone_it_learns_what_is_right(policy: Path, tmp_path: Path) -> None:
    table, held_out = (random_trees(24, digest_of(policy), seed=seed) for seed in (0, 1))
    summary = train_self_evaluation(policy, table, tmp_path / "out", QUICK, PROMPT)
    assert summary.last["nll"] < 0.5 * summary.first["nll"]
    questions = questions_of(policy, held_out, QUICK, PROMPT)
    assert judged(tmp_path / "out", questions) > max(0.85, judged(policy, questions))


def test_beside_an_objective_it_learns_both(policy: Path, tmp_path: Path) -> None:
    digest = digest_of(policy)
    rows = [(prompt, prefix, [*a, 5], [*b, 6]) for prompt, prefix, a, b in random_rows(32)]
    settings = changed(QUICK, {"self_evaluation.share": 0.7})
    pairs = pairs_of(rows, digest)
    table, held_out = (random_trees(24, digest, seed=seed) for seed in (0, 1))
    summary = train_self_evaluation(policy, table, tmp_path / "out", settings, PROMPT, data=pairs)
    assert summary.objective == "step_dpo"
    assert summary.rows == 32 + round(32 * 0.7 / 0.3)
    assert summary.last["self_evaluation"] < 0.6 * summary.first["self_evaluation"]
    assert summary.last["nll"] < summary.first["nll"]
    questions = questions_of(policy, held_out, QUICK, PROMPT)
    assert judged(tmp_path / "out", questions) > max(0.8, judged(policy, questions))


@pytest.mark.usefixtures("wide_norms")
@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_is_the_weighted_sum_of_both(policy: Path, packing: bool) -> None:
    """Loss and gradient, in float64, against the two trainings by themselves; in one pass of each kind, and in more."""
    digest = digest_of(policy)
    settings = changed(QUICK, {"data.packing": packing, "objective.kind": "step_dpo"})
    data = collate(pairs_of(random_rows(6), digest), settings.objective)
    questions = _questions(questions_of(policy, random_trees(3, digest), settings, PROMPT), digest)
    own = PolicyTrainingTask(data, settings, torch.device("cpu"))
    task = mixed(own, questions)
    assert task.rows == 6 + 4
    model = tiny_model(dtype=torch.float64)
    everything = np.arange(task.rows)
    with torch.no_grad():
        reference = torch.zeros(task.sequences, dtype=torch.float64)
        for rows in task.passes(everything, 10_000):
            which, values, _ = task.reference(model, rows=rows)
            reference[which] = values - 0.1

    def gradients(parts: Any) -> tuple[Any, list[Any]]:
        model.zero_grad()
        loss = sum(parts)
        loss.backward()
        return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    alone = own.micro_batch_loss(model, rows=np.arange(6), update=np.arange(6), reference=reference).loss
    asked = task.questions.micro_batch_loss(model, rows=task.asked, update=task.asked, reference=None).loss
    expected = gradients([0.6 * alone, 0.4 * asked])
    for max_tokens in (10_000, 30):
        passes = task.passes(everything, max_tokens)
        assert sorted(np.concatenate(passes).tolist()) == everything.tolist()
        assert (len(passes) > 2) == (max_tokens == 30)
        parts = [task.micro_batch_loss(model, rows=rows, update=everything, reference=reference) for rows in passes]
        loss, found = gradients([part.loss for part in parts])
        assert float(loss) == pytest.approx(float(expected[0]), abs=1e-12)
        figures = torch.stack([part.figures for part in parts]).sum(0)
        assert len(figures) == len(task.names)
        assert float(figures[0]) == pytest.approx(float(loss), abs=1e-6)
        assert float(figures[-1]) == pytest.approx(float(asked), abs=1e-6)
        for one, other in zip(found, expected[1], strict=True):
            assert float((one - other).abs().max()) < 1e-12


def test_bad_input_is_one_line(policy: Path, tmp_path: Path) -> None:
    digest = digest_of(policy)
    with pytest.raises(InputError, match="steps: made with another tokenizer than that of the policy"):
        train_self_evaluation(policy, random_trees(2, "another"), tmp_path / "x", QUICK, PROMPT)
    pairs = pairs_of(random_rows(2), digest)
    pairs.save(tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet: holds pairs, not labelled steps \(accepted: steps\.parquet"):
        train_self_evaluation(policy, tmp_path / "pairs.parquet", tmp_path / "x", QUICK, PROMPT)
    questions = questions_of(policy, random_trees(2, digest), QUICK, PROMPT)
    other = Solutions(questions.table.replace_schema_metadata({"tokenizer": "other"}))
    with pytest.raises(InputError, match="solutions: made with different tokenizers"):
        train(policy, pairs, tmp_path / "x", QUICK, questions=other)
    assert not (tmp_path / "x").exists()

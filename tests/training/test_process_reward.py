"""A process reward model learns from labelled steps, and transformers reads what is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.models.token_classifier import require_classifier
from mcts_dpo.preferences import Steps
from mcts_dpo.training import LoraSettings, ProcessRewardSettings, TrainingSettings, train_process_reward
from mcts_dpo.training.data.steps import collate_steps, correctness
from mcts_dpo.training.heads import HeadModel, HeadTask
from mcts_dpo.training.process_reward import LABELS, WIDTHS, _pair_weights, process_loss
from tests.training.world import digest_of, pairs_of, random_rows, tiny_model, tiny_policy

QUICK = TrainingSettings(optimiser={"lr": 5e-3, "schedule": "linear"}, data={"epochs": 30}, threads=1)
Tree = tuple[list[int], list[list[list[int]]]]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


def steps_of(
    paths: Sequence[tuple[int, list[int], list[list[int]], list[int], list[float], list[int]]], tokenizer: str
) -> Steps:
    """Paths as (tree, prompt, steps, nodes, values, counts)."""
    columns: dict[str, Any] = {
        "problem_id": [f"p{tree}" for tree, *_ in paths],
        "tree": [tree for tree, *_ in paths],
        "leaf": [nodes[-1] for *_, nodes, _, _ in paths],
        "prompt": ["Q"] * len(paths),
        "completions": [[" ".join(f"w{token}" for token in step) for step in steps] for _, _, steps, *_ in paths],
        "labels": [[value > 0 for value in values] for *_, values, _ in paths],
        "prompt_tokens": [prompt for _, prompt, *_ in paths],
        "completion_tokens": [[token for step in steps for token in step] for _, _, steps, *_ in paths],
        "step_ends": [np.cumsum([len(step) for step in steps]).tolist() for _, _, steps, *_ in paths],
        "nodes": [nodes for *_, nodes, _, _ in paths],
        "values": [values for *_, values, _ in paths],
        "counts": [counts for *_, counts in paths],
    }
    return Steps.from_columns(columns, tokenizer)


def random_trees(trees: int, tokenizer: str, seed: int = 0) -> Steps:
    """Binary trees of two levels. A step that ends in token 5 is right, one in token 6 wrong, and so is all below."""
    rng = np.random.default_rng(seed)
    paths = []
    for tree in range(trees):
        prompt = rng.integers(7, 31, int(rng.integers(1, 5))).tolist()
        first = [[*rng.integers(7, 31, int(rng.integers(0, 3))).tolist(), end] for end in (5, 6)]
        for a, step in enumerate(first):
            for b, end in enumerate((5, 6)):
                last = [*rng.integers(7, 31, int(rng.integers(0, 3))).tolist(), end]
                values = [(0.75, 0.0)[a], 1.0 if a == b == 0 else 0.0]
                paths.append((tree, prompt, [step, last], [1 + a, 3 + 2 * a + b], values, [4, 1 + b]))
    return steps_of(paths, tokenizer)


def logits_of(folder: Path, ids: list[int], dtype: torch.dtype = torch.float32) -> Any:
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("how", ["all weights", "head", "adapters"])
def test_it_learns_labels_and_transformers_loads_it(policy: Path, tmp_path: Path, kind: Any, how: str) -> None:
    changes: dict[str, Any] = {"process_reward.kind": kind, "process_reward.ranking_weight": 0.5}
    if how == "head":
        changes |= {"process_reward.trunk": "frozen", "optimiser.lr": 0.1}
    if how == "adapters":
        changes |= {"lora": LoraSettings(rank=4), "optimiser.lr": 0.02}
    settings = changed(QUICK, changes)
    table = random_trees(24, digest_of(policy))
    summary = train_process_reward(policy, table, tmp_path / "prm", settings)
    assert summary.objective == "process_reward"
    assert summary.rows == 24 * 3, "the steps after the prompt, and after each of the two steps"
    fit = "cross_entropy" if kind == "classification" else "regression"
    assert summary.first["accuracy"] == pytest.approx(0.5)
    assert summary.last["accuracy"] > 0.9
    assert summary.last[fit] < 0.7 * summary.first[fit]
    about = json.loads((tmp_path / "prm" / "process_reward.json").read_text())
    expected = {"format": 1, "family": "mcts_dpo", "tokenizer": digest_of(policy), "kind": kind, "range": [0.0, 1.0]}
    assert {name: about[name] for name in expected} == expected
    assert about["settings"]["process_reward"]["kind"] == kind
    assert about["summary"]["rows"] == summary.rows
    config = json.loads((tmp_path / "prm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]
    assert AutoTokenizer.from_pretrained(tmp_path / "prm")("w5 w6")["input_ids"] == [5, 6]
    held_out = random_trees(8, digest_of(policy), seed=1)
    right, wrong = [], []
    for row in held_out.table.to_pylist():
        logits = logits_of(tmp_path / "prm", row["prompt_tokens"] + row["completion_tokens"])
        assert logits.shape[1] == WIDTHS[kind]
        scores = logits.softmax(1)[:, 1] if kind == "classification" else logits[:, 0]
        place = len(row["prompt_tokens"]) + row["step_ends"][0] - 1
        (right if row["values"][0] else wrong).append(float(scores[place]))
    assert np.mean(right) > np.mean(wrong) + 0.2
    if how == "head":
        before = tiny_model().state_dict()["model.layers.0.mlp.up_proj.weight"]
        after = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm").state_dict()
        assert torch.equal(before, after["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["all weights", "adapters"])
def test_what_is_loaded_has_the_logits_of_the_trained_head(
    policy: Path, tmp_path: Path, lora: LoraSettings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcts_dpo.training import process_reward

    kept: list[Any] = []
    ids = [9, 8, 7, 5, 12, 6]

    def write(*arguments: Any) -> None:
        model = arguments[3].model
        with torch.no_grad():
            trunk = model.trunk.base_model
            kept.append(model.head(trunk(input_ids=torch.tensor([ids])).last_hidden_state)[0].clone())
        original(*arguments)

    original = process_reward._write
    monkeypatch.setattr(process_reward, "_write", write)
    settings = changed(QUICK, {"lora": lora, "data.packing": False, "data.epochs": 5})
    train_process_reward(policy, random_trees(12, digest_of(policy)), tmp_path / "prm", settings)
    assert float(kept[0].abs().max()) > 0.05
    assert logits_of(tmp_path / "prm", ids) == pytest.approx(kept[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("target", ["soft", "hard", "first_error"])
@pytest.mark.usefixtures("wide_norms")
def test_a_pack_is_one_sequence_at_a_time(kind: Any, target: Any) -> None:
    """Loss, figures and gradients, in float64, against unpadded sequences of single steps and sums written out; in one
    forward pass, and in several."""
    rng = np.random.default_rng(0)
    paths = []
    for tree, (prompt, a, b, c) in enumerate(random_rows(5)):
        for leaf, last in enumerate(([*b, 3], [*b, 4], c)):
            values = [0.5, float(rng.integers(0, 3)) / 2]
            paths.append((tree, prompt, [[*a, 2], last], [1, 2 + leaf], values, [7, int(rng.integers(1, 5))]))
    table = steps_of(paths, "digest")
    own = {"kind": kind, "target": target, "prior_samples": 2.0, "ranking_weight": 0.7}
    data = collate_steps(table, "test", ProcessRewardSettings.model_validate(own))
    assert (len(data.sequences), data.sequences.rows) == (5 * 4, 5 * 2)
    model = HeadModel(tiny_model(dtype=torch.float64), torch.nn.Linear(16, WIDTHS[kind], dtype=torch.float64))
    expected = written_out(model, table, own)
    names = ("loss", "fit", "ranking", "accuracy")
    everything = np.arange(data.sequences.rows)
    for packing in (True, False):
        settings = TrainingSettings(data={"packing": packing}, process_reward=own)
        pairs = _pair_weights(data, settings.process_reward)

        def loss(*arguments: Any, settings: Any = settings.process_reward, pairs: Any = pairs) -> Any:
            return process_loss(data, settings, pairs, *arguments)

        task = HeadTask(data.sequences, loss, names, settings, torch.device("cpu"))
        for max_tokens in (10_000, 40):
            model.zero_grad()
            passes = task.passes(everything, max_tokens)
            assert (len(passes) > 1) == (max_tokens == 40)
            parts = [task.micro_batch_loss(model, rows=rows, update=everything, reference=None) for rows in passes]
            sum(part.loss for part in parts).backward()  # type: ignore[union-attr]
            figures = torch.stack([part.figures for part in parts]).sum(0)
            assert figures.tolist() == pytest.approx(expected[0].tolist(), rel=1e-12, abs=1e-12)
            for parameter, gradient in zip(model.parameters(), expected[1], strict=True):
                if gradient is not None:
                    assert parameter.grad is not None
                    assert float((parameter.grad - gradient).abs().max()) < 1e-12


def written_out(model: HeadModel, table: Steps, own: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The figures and gradients of a whole table, step by step and pair by pair."""
    outputs: dict[Any, tuple[Any, float, float]] = {}
    for row in table.table.to_pylist():
        for node, end, value, label, count in zip(
            row["nodes"], row["step_ends"], row["values"], row["labels"], row["counts"], strict=True
        ):
            ids = torch.tensor([row["prompt_tokens"] + row["completion_tokens"][:end]])
            state = model.trunk.base_model(input_ids=ids).last_hidden_state[0, -1]
            target = (
                value if own["target"] == "soft" else float(label)
            )  # with values like these, first errors are these
            parent = row["nodes"][0] if node != row["nodes"][0] else 0
            outputs[row["tree"], parent, node] = (model.head(state), target, count / (count + own["prior_samples"]))
    fit, weights, ranking, right, pairs = 0.0, 0.0, 0.0, 0.0, 0.0
    classes = own["kind"] == "classification"
    for found, target, sure in outputs.values():
        logs = found.log_softmax(0)
        each = -(target * logs[1] + (1 - target) * logs[0]) if classes else (found[0] - target) ** 2
        fit, weights = fit + sure * each, weights + sure
    for (tree, parent, _), (a, t, c) in outputs.items():
        for (other, above, _), (b, u, d) in outputs.items():
            if (tree, parent) == (other, above) and t > u:
                gap = (a[1] - a[0]) - (b[1] - b[0]) if classes else a[0] - b[0]
                each = torch.nn.functional.softplus(-gap) if classes else torch.relu((t - u) - gap)
                ranking, right, pairs = ranking + c * d * each, right + c * d * float(gap > 0), pairs + c * d
    loss = fit / weights + own["ranking_weight"] * ranking / pairs
    model.zero_grad()
    loss.backward()
    gradients = [None if one.grad is None else one.grad.clone() for one in model.parameters()]
    return torch.stack(
        [loss, fit / weights, ranking / pairs, torch.tensor(right / pairs, dtype=torch.float64)]
    ).detach(), gradients


def test_equal_numbers_in_two_shards_are_two_trees(policy: Path) -> None:
    one, two = (random_trees(2, "digest", seed=seed) for seed in (0, 1))

    def rows(table: Steps) -> int:
        return collate_steps(table, "test", ProcessRewardSettings()).sequences.rows

    assert rows(Steps.concatenate([one, two])) == rows(one) + rows(two)


def test_first_errors_tell_right_from_wrong() -> None:
    """A collapse of enough samples after a state of some value is an error; a value of 0 elsewhere says nothing."""
    paths = [
        (0, [9], [[10], [11]], [1, 2], [0.5, 1.0], [8, 4]),
        (0, [9], [[10], [12], [14]], [1, 3, 4], [0.5, 0.0, 0.0], [8, 2, 1]),
        (0, [9], [[10], [13], [14], [15]], [1, 5, 6, 7], [0.5, 0.0, 0.0, 0.0], [8, 1, 1, 1]),
        (0, [9], [[16]], [8], [0.0], [1]),
        (1, [9], [[10], [17]], [1, 2], [0.0, 0.0], [8, 8]),
        (1, [9], [[18]], [3], [0.0], [8]),
    ]
    labels, errors = correctness(steps_of(paths, "digest"), 2)
    nan = np.nan
    expected = [[1, 1], [1, 0, 0], [1, nan, nan, 0], [0], [nan, 0], [0]]
    assert errors == [None, 1, None, 0, None, None]
    for found, wanted in zip(labels, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    settings = ProcessRewardSettings(target="first_error")
    data = collate_steps(steps_of(paths, "digest"), "test", settings)
    assert len(data.sequences) == 8, "steps of which nothing is known are left out"
    assert sorted(data.step_columns["target"].tolist()) == [0] * 6 + [1] * 2


def test_a_killed_training_ends_in_the_same_bytes(policy: Path, tmp_path: Path) -> None:
    settings = changed(QUICK, {"data.epochs": 4, "checkpoint.updates": 3, "trackers": ()})
    table = random_trees(24, digest_of(policy))
    train_process_reward(policy, table, tmp_path / "a", settings, log=tmp_path / "a.jsonl")

    def stop(stage: str, done: int, total: int, **figures: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_process_reward(policy, table, tmp_path / "b", settings, log=tmp_path / "b.jsonl", progress=stop)
    assert (tmp_path / "b.unfinished" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "b").exists()
    train_process_reward(policy, table, tmp_path / "b", settings, log=tmp_path / "b.jsonl")
    for name in ("model.safetensors", "process_reward.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_bad_input_is_one_line(policy: Path, tmp_path: Path) -> None:
    quick = changed(QUICK, {"data.epochs": 1})
    digest = digest_of(policy)
    with pytest.raises(InputError, match="steps: made with another tokenizer than that of the policy"):
        train_process_reward(policy, random_trees(2, "another"), tmp_path / "x", quick)
    with pytest.raises(InputError, match=r"steps: no rows: no step has a solution below it whose outcome is known"):
        train_process_reward(policy, random_trees(0, digest), tmp_path / "x", quick)
    with pytest.raises(InputError, match=r"absent\.parquet: no such table \(accepted: steps\.parquet"):
        train_process_reward(policy, tmp_path / "absent.parquet", tmp_path / "x", quick)
    pairs_of(random_rows(2), digest).save(tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet: holds pairs, not labelled steps"):
        train_process_reward(policy, tmp_path / "pairs.parquet", tmp_path / "x", quick)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"broken\.parquet: not a readable Parquet file"):
        train_process_reward(policy, tmp_path / "broken.parquet", tmp_path / "x", quick)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="there"):
        train_process_reward(policy, random_trees(2, digest), tmp_path / "there", quick)
    with pytest.raises(InputError, match=r"GPT2LMHeadModel: .*GPT2ForTokenClassification has another head"):
        require_classifier(
            GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=9)), LABELS["regression"]
        )
    assert not (tmp_path / "x").exists()

"""The reward `process` in a search of the built-in world: judges of text and of the policy's ids."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from benchmarks.judges_packing import process_speedup
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.engines import load_engine
from mcts_dpo.models.loading import tokenizer_digest
from mcts_dpo.rewards import OutcomeSettings, SolutionPath
from mcts_dpo.rewards.process import ProcessSettings
from mcts_dpo.rewards.process.judge import judge_for
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.training import train_process_reward
from tests.conftest import ToyWorld
from tests.rewards.process.world import byte_tokenizer, judge_of, path_of, random_head, save_judge
from tests.training.test_process_reward import QUICK, logits_of, random_trees
from tests.training.world import digest_of, tiny_policy


def searched(world: ToyWorld, judge: Path, **settings: Any) -> Forest:
    """Trees of two problems under the outcome and this judge of every step."""
    reward = ProcessSettings(model=str(judge), weight=0.5, at="all", **settings)
    search = SearchSettings(simulations=4, children=3, max_tokens=64, rewards=(OutcomeSettings(), reward))
    config = world.config
    engine = load_engine(world.policy, settings=config.engine)
    return search_problems(world.train[:2], engine, prompt=config.prompt, settings=search)


def steps_of(forest: Forest) -> list[int]:
    return [node for node in range(len(forest)) if forest.parent[node] >= 0]


def test_a_judge_that_reads_text(toy_world: ToyWorld, tmp_path: Path) -> None:
    head = random_head(("score.0", 32, 32), ("score.2", 2, 32))
    folder = save_judge(
        tmp_path / "Qwen2.5-Math-PRM-7B", "qwen2", byte_tokenizer(["<extra_0>"]), "Qwen2ForProcessRewardModel", head
    )
    forest = searched(toy_world, folder)
    judge = judge_of(folder)
    steps = steps_of(forest)
    assert len(steps) > 12
    for node in steps:
        texts = [forest.texts[above] for above in forest.path(node)[1:]]
        (alone,) = judge.scores([(toy_world.train[forest.tree[node]].question, path_of(texts))])
        assert forest.scores["process"][node] == pytest.approx(alone, abs=1e-5)
    expected = np.where(np.isnan(forest.outcome), 0.0, forest.outcome) + 0.5 * forest.scores["process"]
    assert forest.state_reward[steps] == pytest.approx(expected[steps])
    assert [tree.unscored for tree in forest.trees] == [{}, {}]


def test_a_judge_that_reads_the_policys_ids(toy_world: ToyWorld, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toy_world.policy)
    head = random_head(("score", 2, 32))
    folder = save_judge(tmp_path / "judge", "llama", tokenizer, "LlamaForTokenClassification", head)
    about = {"format": 1, "family": "mcts_dpo", "tokenizer": tokenizer_digest(tokenizer), "kind": "classification"}
    (folder / "process_reward.json").write_text(json.dumps(about))
    forest = searched(toy_world, folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for node in steps_of(forest):
        ids = [*forest.trees[forest.tree[node]].prompt_tokens, *forest.solution_tokens(node)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert forest.scores["process"][node] == pytest.approx(float(logits.softmax(0)[1]), abs=1e-5)
    (folder / "process_reward.json").write_text(json.dumps(about | {"tokenizer": "another"}))
    with pytest.raises(InputError, match="was trained with another tokenizer"):
        searched(toy_world, folder)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_judge_that_we_have_trained(tmp_path: Path, kind: str) -> None:
    policy = tiny_policy(tmp_path / "policy")
    table = random_trees(6, digest_of(policy))
    settings = changed(QUICK, {"process_reward.kind": kind, "data.epochs": 1})
    train_process_reward(policy, table, tmp_path / "judge", settings)
    judge, rows = judge_of(tmp_path / "judge"), table.table.to_pylist()
    paths = [
        SolutionPath(tuple(row["prompt_tokens"]), row["completion_tokens"], "", ends=tuple(row["step_ends"]))
        for row in rows
    ]
    for path, found in zip(paths, judge.step_scores([("", path) for path in paths]), strict=True):
        logits = logits_of(tmp_path / "judge", [*path.prompt, *path.tokens])
        scores = logits.softmax(1)[:, 1] if kind == "classification" else logits[:, 0].clip(0, 1)
        assert found == pytest.approx([float(scores[len(path.prompt) + end - 1]) for end in path.ends], abs=1e-5)


def test_a_judge_that_does_not_answer_costs_no_tree(toy_world: ToyWorld, tmp_path: Path) -> None:
    head = random_head(("score", 2, 32))
    folder = save_judge(tmp_path / "judge", "llama", byte_tokenizer(), "LlamaForTokenClassification", head)
    forest = searched(toy_world, folder, url="http://127.0.0.1:9", timeout=1.0)
    steps = steps_of(forest)
    assert all(math.isnan(score) for score in forest.scores["process"][steps])
    assert sum(tree.unscored["process"] for tree in forest.trees) == len(steps)
    assert forest.state_reward[steps] == pytest.approx(np.nan_to_num(forest.outcome[steps].astype(float)))


def test_a_judge_is_opened_once_and_anew_after_its_files_change(tmp_path: Path) -> None:
    def save(seed: int) -> ProcessSettings:
        head = random_head(("score", 2, 32))
        save_judge(tmp_path / "judge", "llama", byte_tokenizer(), "LlamaForTokenClassification", head, seed)
        return ProcessSettings(model=str(tmp_path / "judge"))

    first = judge_for(save(0))
    assert judge_for(ProcessSettings(model=str(tmp_path / "judge"), weight=0.1, at="all")) is first
    again = judge_for(save(1))
    assert again is not first
    assert again.scores([("q", path_of(["a"]))]) != first.scores([("q", path_of(["a"]))])
    assert ProcessSettings(model=str(tmp_path / "judge"), reference="a/b").files() == [tmp_path / "judge"]


def test_packed_passes_are_equal_to_one_path_at_a_time() -> None:
    found = process_speedup(0)
    assert found["difference"] < 1e-5
    assert found["process_speedup"] > 0  # how fast is for benchmarks.judges to say
    assert found["tokens"] > 4 * found["unique_tokens"]

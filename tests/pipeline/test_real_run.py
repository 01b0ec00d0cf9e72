"""One whole round with a real pretrained model: SmolLM2-135M-Instruct on a handful of problems, with LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mcts_dpo.data import Problem, ProblemSettings, save_problems
from mcts_dpo.engines import EngineSettings
from mcts_dpo.evaluation import EvaluationSettings
from mcts_dpo.models.prompts import Example, PromptSettings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import Pairs, PreferenceSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings
from mcts_dpo.training import LoraSettings, TrainingSettings

TRAIN = [("What is 2 + 3?", "5"), ("Tom has 4 pens and buys 2. How many pens has he?", "6"), ("What is 9 - 1?", "8")]
TEST = [("What is 3 + 4?", "7"), ("Ann has 5 cups and breaks 2. How many cups has she?", "3")]


def write(path: Path, questions: list[tuple[str, str]]) -> ProblemSettings:
    save_problems(path, [Problem(f"p{i}", question, answer) for i, (question, answer) in enumerate(questions)])
    return ProblemSettings(source=str(path))


@pytest.mark.real_model
def test_one_round_moves_the_model(smollm2: Path, tmp_path: Path) -> None:
    config = RunConfig(
        model=str(smollm2),
        train=write(tmp_path / "train.jsonl", TRAIN),
        test=write(tmp_path / "test.jsonl", TEST),
        prompt=PromptSettings(
            template="{question}",
            examples=(Example(question="What is 1 + 1?", solution="1 + 1 = 2\nThe answer is 2."),),
            answer_style="last_number",
        ),
        engine=EngineSettings(slots=16, dtype="bfloat16", threads=1),
        # Confidence beside the outcome: solutions differ in value even where none, or all, of them are right.
        search=SearchSettings(
            simulations=2, children=3, max_tokens=40, rewards=(OutcomeSettings(), SelfEvaluationSettings(weight=0.5))
        ),
        preferences=PreferenceSettings(min_gap=0.0),
        training=TrainingSettings(
            optimiser={"lr": 1e-3},
            data={"epochs": 2, "max_updates": 2, "max_batch_tokens": 1024},
            lora=LoraSettings(rank=4, alpha=8),
            threads=1,
        ),
        evaluation=EvaluationSettings(max_tokens=40),
        problems_per_round=3,
        shard_size=2,
    )
    result = run(config, tmp_path / "run")
    place = tmp_path / "run" / "round-000"
    forests = [Forest.load(shard) for shard in sorted((place / "trees").glob("*.parquet"))]
    assert sum(len(forest.trees) for forest in forests) == 3
    assert all(info.status != "failed" for forest in forests for info in forest.trees)
    pairs = Pairs.load(place / "pairs.parquet")
    assert len(pairs) > 0
    for prompt, chosen in zip(pairs.texts("prompt"), pairs.texts("chosen"), strict=True):
        assert "1 + 1 = 2" in prompt, "the few-shot example is part of what the policy saw"
        assert chosen
    (metrics,) = result.rounds
    assert metrics["training"]["updates"] == 2
    assert metrics["training"]["last"]["chosen_displacement"] != 0.0
    before = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16).state_dict()
    after = AutoModelForCausalLM.from_pretrained(place / "policy", dtype=torch.bfloat16).state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (place / "policy" / "adapter" / "adapter_config.json").exists()

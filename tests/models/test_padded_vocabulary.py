"""A model with more rows in its embedding than its tokenizer has tokens (Qwen's layout): padded ids are no text.

The model is real and tiny, its weights are random: about every second token that it samples is padding.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.driving import complete
from mcts_dpo.cli.app import main
from mcts_dpo.data import Problem, save_problems
from mcts_dpo.engines import Engine, Request, load_engine
from mcts_dpo.engines.text import StopStrings
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.models.decoding import decode, prefixes
from mcts_dpo.models.prompts import PromptSettings, split_steps
from mcts_dpo.pipeline.config import StageConfig
from mcts_dpo.search import Forest, SearchSettings
from tests.engines.test_text import Slow
from tests.engines.tiny import make_tokenizer, save_model
from tests.integrations.serving import thread
from tests.models.test_decoding import slow_split
from tests.models.test_prompts import byte_level, metaspace

PADDING = 400
SEARCH = ("search.simulations=4", "search.children=3", "search.max_tokens=32", "search.max_step_tokens=8")
Command = Callable[..., str]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level()
    size = len(tokenizer) + PADDING
    folder = tmp_path_factory.mktemp("padded") / "policy"
    return save_model(
        folder, "qwen2", tokenizer=tokenizer, vocab_size=size, max_position_embeddings=512, eos_token_id=1
    )


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    save_problems(path, [Problem("one", "What is 2 + 3?", "5"), Problem("two", "Tom finds 4 eggs?", "4")])
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `mcts-dpo` in this process; returns what it prints, and fails unless it succeeds."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mcts-dpo", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return call


def shown(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    known = [token for token in tokens if token < len(tokenizer)]
    return str(tokenizer.decode(known, skip_special_tokens=True))


@pytest.mark.parametrize("expand", ["rollout", "step"])
@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_search(command: Command, policy: Path, problems: Path, tmp_path: Path, expand: str, schedule: str) -> None:
    trees = tmp_path / "trees"
    more = (f"search.expand={expand}", f"search.schedule={schedule}", "search.rewards.self_evaluation.weight=0.5")
    found = json.loads(command("search", "-m", policy, "-p", problems, "-o", trees, "--json", *SEARCH, *more))
    assert (found["trees"], found["failed"]) == (2, {})
    forest = Forest.load(trees / "shard-0000.parquet")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    padded = 0
    for node in np.flatnonzero(forest.depth > 0).tolist():
        tokens = forest.step_tokens(node)
        padded += sum(token >= len(tokenizer) for token in tokens)
        # A character that is spread over two steps has no text in the first.
        if "�" not in forest.texts[node]:
            assert forest.texts[node] == shown(tokenizer, tokens)
    assert padded > 20
    assert json.loads(command("tree", trees, "one", "--json"))
    command("pairs", trees, "--out", tmp_path / "data", "--json")


@pytest.mark.parametrize("strategy", [None, "majority", "beam", "mcts"])
def test_evaluation(command: Command, policy: Path, problems: Path, strategy: str | None) -> None:
    how = ("--strategy", strategy, "--budget", 64) if strategy else ("evaluation.samples=4", "evaluation.max_tokens=32")
    found = json.loads(command("eval", "-m", policy, "-p", problems, "--json", *SEARCH, *how))
    assert found


def test_server(policy: Path) -> None:
    engine = load_engine(policy, slots=8, threads=1)
    config = StageConfig(search=SearchSettings(max_tokens=32, simulations=4, temperature=1.0))
    with thread(engine, ServerSettings(budget=64), config) as served:
        said = served.client().chat.completions.create(
            model="toy", messages=[{"role": "user", "content": "What is 2 + 3?"}], n=4, seed=1
        )
        assert len(said.choices) == 4
        served.wait_until_idle()
    assert any(token >= len(engine.tokenizer) for token in sampled(engine))


def sampled(engine: Engine) -> list[int]:
    (answer,) = complete(engine, [Request(0, (5, 6), n=4, max_tokens=32)])
    return [token for sample in answer.samples for token in sample.tokens]


def test_every_kind_of_tokenizer() -> None:
    for tokenizer in (byte_level(), metaspace(), make_tokenizer(), Slow(make_tokenizer())):
        size = len(tokenizer)
        known = [5, 9, 4, 2, 9, 7]
        text = decode(tokenizer, known)
        mixed = [token for one in known for token in (size, one, size + 7)]
        up_to = prefixes(tokenizer, mixed)
        assert [up_to(3 * count) for count in range(7)] == [decode(tokenizer, known[:count]) for count in range(7)]
        assert StopStrings(tokenizer, size + 8).decode(mixed) == text


def test_ids_behind_a_gap_are_not_padding() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b>": 9}, unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert decode(tokenizer, [1, 5, 9, 12]) == "ab>"
    strings = StopStrings(tokenizer, 14)
    assert np.flatnonzero(strings.table((">",))).tolist() == [9]
    assert strings.completed([1, 5, 9], (">",))


def test_a_stop_string_with_padding_inside() -> None:
    tokenizer = make_tokenizer()
    strings = StopStrings(tokenizer, len(tokenizer) + PADDING)
    padding = [len(tokenizer) + place for place in range(60)]
    newline, a, b = (tokenizer.convert_tokens_to_ids(piece) for piece in ("\n", "a", "b"))
    tokens = [b, a, *padding, newline]
    assert strings.table(("a\n",))[newline]
    assert strings.completed(tokens, ("a\n",))
    assert not strings.table(("a\n",))[len(tokenizer) :].any()


def test_steps_are_cut_as_without_padding() -> None:
    tokenizer, settings = byte_level(), PromptSettings()
    tokens = list(tokenizer("First, 2 + 3 is 5.\n\nThe answer is 5.\n", add_special_tokens=False)["input_ids"])
    size = len(tokenizer)
    mixed = [token for one in tokens for token in (one, size + one)]
    ends = split_steps(mixed, tokenizer, settings)
    assert [-(-end // 2) for end in ends] == slow_split(tokens, tokenizer, "\n")

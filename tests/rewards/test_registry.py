"""Rewards by name: a third-party reward is one file of under 40 lines, and a search scores by it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table
from mcts_dpo.common.settings import load_settings
from mcts_dpo.rewards import OutcomeSettings, RewardSettings, SelfEvaluationSettings, register_reward
from mcts_dpo.rewards.registry import reward_kind, reward_names, with_entry
from mcts_dpo.search import Forest, SearchSettings
from tests.engines.tiny import make_byte_tokenizer, save_model

BREVITY = '''"""Short solutions are better."""
from typing import Literal

from mcts_dpo.rewards import Reward, RewardSettings, pure, register_reward


class BrevitySettings(RewardSettings):
    """1 for a solution without a token, 0 from `limit` tokens on.

    limit: tokens of the longest solution with a score above 0.
    """

    kind: Literal["brevity"] = "brevity"
    limit: int = 100


def make(settings, context):
    return Reward(settings, pure(lambda paths: [max(0, 1 - len(path.tokens) / settings.limit) for path in paths]))


register_reward(BrevitySettings, make)
'''


def test_a_search_with_a_reward_from_outside(tmp_path: Path) -> None:
    assert BREVITY.count("\n") < 40
    (tmp_path / "brevity.py").write_text(BREVITY)
    (tmp_path / "problems.jsonl").write_text('{"question": "aé", "answer": "ü"}\n{"question": "a€", "answer": "a"}\n')
    save_model(tmp_path / "model", tokenizer=make_byte_tokenizer())
    command = [sys.executable, "-m", "mcts_dpo", "--with", "brevity", "search", "-m", "model", "-p", "problems.jsonl"]
    command += [
        "-o",
        "trees",
        "prompt.style=plain",
        "search.simulations=3",
        "search.children=4",
        "search.max_tokens=12",
        "search.expand=step",
        "search.max_step_tokens=4",
    ]

    def search(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=600)

    refused = search("search.rewards.brevity.limt=40")
    assert refused.returncode == 2
    assert "unknown setting; did you mean 'limit'?" in refused.stderr
    ran = search(
        "search.rewards.brevity.weight=0.5", "search.rewards.brevity.limit=40", "search.rewards.brevity.at=all"
    )
    assert ran.returncode == 0, ran.stderr
    (shard,) = (tmp_path / "trees").glob("*.parquet")
    table, forest = read_table(shard), Forest.load(shard)
    rewards = forest.settings["search"]["rewards"]
    assert rewards[1] == {"kind": "brevity", "weight": 0.5, "at": "all", "limit": 40}
    steps = [node for node in range(len(forest)) if forest.depth[node] > 0]
    expected = [max(0, 1 - len(forest.solution_tokens(node)) / 40) for node in steps]
    assert [table["reward_brevity"][node].as_py() for node in steps] == pytest.approx(expected)
    assert forest.state_reward[steps] == pytest.approx(forest.outcome[steps] + 0.5 * forest.scores["brevity"][steps])
    assert len(steps) >= len(forest.trees) == 2


def test_names_of_rewards() -> None:
    built_in = {"judge", "length", "outcome", "process", "self_evaluation", "value_model"}
    built_in |= {"forced_answer", "likelihood", "vote"}
    assert built_in <= set(reward_names())
    with pytest.raises(ValueError, match="the reward 'outcome' is registered already"):
        register_reward(OutcomeSettings, reward_kind("outcome").make)
    with pytest.raises(ValueError, match=r"RewardSettings\.kind: needs a default"):
        register_reward(RewardSettings, reward_kind("outcome").make)


def test_an_entry_is_replaced_by_its_kind() -> None:
    asked = SelfEvaluationSettings(weight=0.5)
    both = with_entry((OutcomeSettings(),), asked)
    assert both == (OutcomeSettings(), asked)
    assert with_entry(both, OutcomeSettings(weight=2.0)) == (OutcomeSettings(weight=2.0), asked)


def test_overrides_reach_an_entry_by_its_kind() -> None:
    given = [
        "rewards.self_evaluation.weight=0.5",
        "rewards.outcome.noise_per_answer=0.1",
        "rewards.self_evaluation.at=all",
    ]
    rewards = load_settings(SearchSettings, None, given).rewards
    assert rewards == (OutcomeSettings(noise_per_answer=0.1), SelfEvaluationSettings(weight=0.5, at="all"))
    file = {"rewards": ["self_evaluation", {"kind": "outcome", "weight": 2.0}]}
    expected = (SelfEvaluationSettings(weight=0.5), OutcomeSettings(weight=2.0))
    assert load_settings(SearchSettings, file, given[:1]).rewards == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rewards.self_evaluation.weight=-1", r"rewards\.1\.weight: -1 is out of range \(accepted: a number ≥ 0"),
        ("rewards.self_evaluation.wieght=1", r"unknown setting; did you mean 'weight'\?"),
        (
            "rewards.self_evalution.weight=1",
            r"'self_evalution' is not one of the choices; did you mean 'self_evaluation'\?",
        ),
        ("rewards.jugde.weight=1", r"'jugde' is not one of the choices; did you mean 'judge'\?"),
        ("rewards=[lenght]", r"'lenght' is not one of the choices; did you mean 'length'\? \(accepted: "),
        ("rewards=[{kind: length, weight: 0}, {kind: vote, weight: 0}]", r"has no weight above 0"),
        ("rewards.length.limit=0", r"rewards\.1\.limit: 0 is out of range \(accepted: an integer ≥ 1\)"),
        ("rewards.length.per=words", r"'words' is not one of the choices \(accepted: 'tokens' or 'steps'\)"),
        ("rewards.vote.at=all", r"'all' is not one of the choices \(accepted: 'terminal'\)"),
        ("rewards.vote.weight=.inf", r"is not finite|is out of range"),
        ("rewards.forced_answer.samples=0", r"samples: 0 is out of range \(accepted: an integer ≥ 1\)"),
        ("rewards.self_evaluation.think=-1", r"think: -1 is out of range \(accepted: an integer ≥ 0\)"),
        ("rewards.value_model.weight=1", r"rewards\.1\.path: missing \(accepted: a path\)"),
        ("rewards=[outcome, {kind: outcome}]", r"has 2 entries of kind 'outcome'; accepted: one entry of a kind"),
        (
            "rewards.outcome.weight=0",
            r"has no weight above 0; accepted: a list of rewards whose weights sum to more than 0",
        ),
        ("rewards=[]", r"\[\] has no weight above 0"),
        ("rewards=[{weight: 1}]", r"rewards\.0\.kind: null is not one of the choices"),
        ("rewards.outcome.at=all", r"'all' is not one of the choices \(accepted: 'terminal'\)"),
        ("self_evaluation.weight=1", r"self_evaluation is now rewards\.self_evaluation"),
        ("value_model.path=value", r"value_model is now rewards\.value_model"),
        ("noise.per_answer=1", r"noise is now rewards\.outcome\.noise_per_rollout and"),
    ],
)
def test_what_is_wrong_with_rewards_in_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^override {re.escape(repr(override))}: .*{message}") as told:
        load_settings(SearchSettings, None, [override])
    assert "\n" not in str(told.value)

"""Recipes: each is a sound set of settings over which the user's own prevail, and some run to the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import as_yaml, load_settings
from mcts_dpo.data import save_problems
from mcts_dpo.pipeline.recipes import NEEDED, load_recipe, merged, read_recipe, recipe_config, recipe_names
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.rewards import OutcomeSettings, ValueModelSettings
from mcts_dpo.search import Forest
from mcts_dpo.toy.policy import WarmStartSettings
from mcts_dpo.toy.thinking import CONTEXT, teach_thinking, thinking_prompt
from mcts_dpo.toy.world import make_problems
from tests.conftest import ROOT, ToyWorld

EXPECTED = {"xie2024", "rft", "iterative-dpo", "kto", "orpo-process", "svpo", "offline", "tpo", "think-shorter"}


def test_the_first_set_is_there_and_says_what_it_is() -> None:
    assert set(recipe_names()) == EXPECTED
    for name in recipe_names():
        recipe = load_recipe(name)
        assert "arXiv" in recipe.source or "github.com" in recipe.source
        assert recipe.reproduces.endswith(".")
        assert all(line.endswith(".") for line in recipe.approximates)
        assert not {"model", "train", "test"} & set(recipe.settings)


def test_the_settings_of_the_released_code_can_be_set() -> None:
    page = (ROOT / "docs" / "xie2024.md").read_text(encoding="utf-8")
    config = recipe_config(load_recipe("xie2024"), NEEDED, overrides := re.findall(r"`(\w[\w.]+=[\w.]+)`", page))
    assert len(overrides) == 9
    assert config.search.reference_child
    assert config.preferences.rejected == "random"


def test_own_settings_prevail_and_overrides_over_them(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model: m\ntrain: {source: a}\ntest: {source: b}\nsearch: {children: 3, max_tokens: 77}\n")
    config = recipe_config(load_recipe("rft"), own, ["search.children=5"])
    assert (config.search.children, config.search.max_tokens, config.search.temperature) == (5, 77, 0.8)
    assert config.training.objective.kind == "rft"
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}) == {"a": {"b": 4, "c": 2}, "d": 3}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe 'xie2025'; did you mean 'xie2024'"):
        load_recipe("xie2025")
    with pytest.raises(InputError, match=r"'xie2024-faithful' was removed; docs/xie2024\.md .*accepted: xie2024"):
        load_recipe("xie2024-faithful")
    with pytest.raises(InputError, match="model"):
        recipe_config(load_recipe("rft"), None)
    bad = tmp_path / "bad.yaml"
    bad.write_text("source: s\nreproduces: r\napproximates: []\nsettings: {search: {childen: 3}}\n")
    with pytest.raises(InputError, match=r"bad\.yaml: settings: .*search\.childen.*did you mean 'children'"):
        read_recipe(bad)


def test_a_recipe_shown_can_be_used(tmp_path: Path) -> None:
    from mcts_dpo.pipeline.recipes import Recipe

    recipe = load_recipe("svpo")
    copied = tmp_path / "copied.yaml"
    copied.write_text(as_yaml(recipe.settings) + "model: m\ntrain: {source: a}\ntest: {source: b}\n")
    empty = Recipe(source="", reproduces="", approximates=(), settings={})
    assert recipe_config(empty, copied) == recipe_config(recipe, NEEDED, ["model=m", "train.source=a", "test.source=b"])


@pytest.mark.parametrize("name", ["svpo", "iterative-dpo"])
def test_it_runs(name: str, toy_world: ToyWorld, tmp_path: Path) -> None:
    """At the size of the tests' world: two rounds of a few problems."""
    world = toy_world.config.model_dump(mode="json")
    small = {part: world[part] for part in ("model", "train", "test", "prompt", "engine", "evaluation", "shard_size")}
    small |= {"rounds": 2, "problems_per_round": 20}
    own = ["search.max_tokens=64", "search.max_step_tokens=24", "training.threads=1", "training.dtype=float32"]
    if name == "svpo":
        own += ["judges.value.training.threads=1", "judges.value.training.dtype=float32"]
    config = recipe_config(load_recipe(name), small, own)
    result = run(config, tmp_path)
    assert len(result.rounds) == 2
    assert all(metrics["pairs"] > 0 for metrics in result.rounds)
    rewards = [load_settings(type(config.search), _settings(tmp_path, index)).rewards for index in range(2)]
    assert rewards[0] == (OutcomeSettings(),)
    if name == "svpo":
        value = ValueModelSettings(path=tmp_path / "round-000" / "value", weight=0.5)
        assert rewards[1] == (OutcomeSettings(), value)
        assert (tmp_path / "round-001" / "value").is_dir()
    else:
        assert rewards[1] == rewards[0]


def test_think_shorter_runs_on_the_thinking_world(tmp_path: Path) -> None:
    """A hardly taught policy, one round: trees hold closed thoughts, and the training reads their pairs."""
    tiny = WarmStartSettings(demonstrations=300, events=(1,), steps=60, width=32, layers=1, context=CONTEXT)
    teach_thinking(tmp_path / "policy", seed=0, settings=tiny)
    for name, seed in (("train", 1), ("test", 2)):
        save_problems(tmp_path / f"{name}.jsonl", make_problems(5, seed, events=(1,)))
    small = {
        "model": str(tmp_path / "policy"),
        "train": {"source": str(tmp_path / "train.jsonl")},
        "test": {"source": str(tmp_path / "test.jsonl")},
        "prompt": thinking_prompt().model_dump(mode="json"),
        "engine": {"dtype": "float32", "threads": 1},
        "evaluation": {"max_tokens": 60},
        "rounds": 1,
        "problems_per_round": 5,
    }
    own = ["search.max_tokens=60", "search.simulations=10", "training.threads=1", "training.dtype=float32"]
    run(recipe_config(load_recipe("think-shorter"), small, [*own, "preferences.min_visits=1"]), tmp_path / "run")
    trees = sorted((tmp_path / "run" / "round-000" / "trees").glob("*.parquet"))
    texts = [text for file in trees for text in Forest.load(file).texts]
    assert any(text == "</think>\n" for text in texts)
    assert (tmp_path / "run" / "round-000" / "policy").is_dir()


def _settings(directory: Path, index: int) -> dict[str, object]:
    shard = sorted((directory / f"round-{index:03d}" / "trees").glob("*.parquet"))[0]
    settings: dict[str, object] = Forest.load(shard).settings["search"]
    return settings

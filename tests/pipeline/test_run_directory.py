"""A run directory's own config: what one of an earlier edition is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.recipes import merged
from mcts_dpo.pipeline.run_directory import claim

CONFIG = {"model": "start", "train": {"source": "train.jsonl"}, "test": {"source": "test.jsonl"}}


def test_old_names_in_the_config_of_a_run_are_told_with_what_to_do(tmp_path: Path) -> None:
    old = CONFIG | {"training": {"objective": "ipo", "lr": 1e-5, "beta": 0.5, "checkpoint_updates": 3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old, sort_keys=False))
    with pytest.raises(InputError) as refused:
        claim(load_settings(RunConfig, CONFIG), tmp_path, force=False)
    assert str(refused.value) == (
        f"{tmp_path / 'config.yaml'}: training.lr is now training.optimiser.lr; training.beta is now "
        "training.objective.beta; training.checkpoint_updates is now training.checkpoint.updates; change it in this "
        f"file to continue the run (`mcts-dpo settings --migrate {tmp_path / 'config.yaml'}` prints it with today's "
        "names), or give another directory"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_settings_of_another_kind_replace_those_below() -> None:
    below = {"training": {"objective": {"kind": "step_dpo", "beta": 0.1}, "optimiser": {"lr": 1e-6}}}
    above = {"training": {"objective": {"kind": "hinge"}}}
    assert merged(below, above)["training"] == {"objective": {"kind": "hinge"}, "optimiser": {"lr": 1e-6}}
    same = {"training": {"objective": {"kind": "step_dpo", "nll_weight": 0.0}}}
    assert merged(below, same)["training"]["objective"] == {"kind": "step_dpo", "beta": 0.1, "nll_weight": 0.0}
    assert merged(below, {"training": {"objective": "ipo"}})["training"]["objective"] == "ipo"

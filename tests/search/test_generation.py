"""`search.generation_config: model` reads the model's own file."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import register_engine, registry
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.search import SearchSettings, own_sampling


def model(folder: Path, stored: Any) -> Path:
    (folder / "config.json").write_text("{}")
    if stored is not None:
        (folder / "generation_config.json").write_text(json.dumps(stored))
    return folder


def test_the_file_gives_what_is_not_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": None, "do_sample": True, "eos_token_id": 1}
    asked = SearchSettings(generation_config="model", top_p=0.5, children=2)
    found = own_sampling(asked, model(tmp_path, stored), "transformers")
    assert found == asked.model_copy(update={"temperature": 0.6, "top_k": 20})
    assert f"sampling of {tmp_path}: temperature 0.6, top_k 20 (from its generation_config.json)" in caplog.text
    assert own_sampling(found, tmp_path, "transformers") == found  # once taken, it is set
    plain = SearchSettings()
    assert own_sampling(plain, tmp_path / "no such folder", "transformers") is plain


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (None, "has no generation_config.json; accepted: none, or a model with this file"),
        ({"temperature": -1}, "generation_config.json: temperature: -1 is out of range"),
        ([1], "generation_config.json: .*accepted: an object"),
        ({"top_k": 5}, "search.top_k: 5, but the engine 'mine' has no top_k; accepted: 0"),
    ],
)
def test_what_cannot_be_taken_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Any, says: str
) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_engine("mine", engine_kind("transformers").load, sampling={"min_p"})
    with pytest.raises(InputError, match=says):
        own_sampling(SearchSettings(generation_config="model"), model(tmp_path, stored), "mine")

"""Engines by name. `tests/test_documentation.py` searches with an engine from outside the package."""

from __future__ import annotations

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import EngineSettings, load_engine, register_engine, registry
from mcts_dpo.engines.registry import engine_kind, engine_names


def test_names_of_engines() -> None:
    assert engine_names()[:3] == ("transformers", "vllm", "openai")
    with pytest.raises(ValueError, match="the engine 'vllm' is registered already"):
        register_engine("vllm", engine_kind("vllm").load)
    accepted = r"\(accepted: transformers, vllm, openai.*\)"
    with pytest.raises(InputError, match=f"kind: 'vlm' is not one of the choices; did you mean 'vllm'\\? {accepted}"):
        load_engine("model", kind="vlm")
    with pytest.raises(InputError, match=f"engine.kind: 'gpt' is not one of the choices {accepted}"):
        engine_kind("gpt")


def test_a_registered_engine_is_named_by_its_nearest_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_engine("mine", engine_kind("transformers").load, local=False)
    with pytest.raises(InputError, match="'mins' is not one of the choices; did you mean 'mine'"):
        load_engine("model", kind="mins")
    assert EngineSettings(kind="mine").kind == "mine"
    assert not engine_kind("mine").local

"""The diagnosis against the real model that it speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from mcts_dpo.cli.doctor import diagnose
from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_model, model_size
from mcts_dpo.pipeline.config import StageConfig


def test_a_model_is_counted_without_its_weights(smollm2: Path) -> None:
    size = model_size(smollm2)
    model = load_model(smollm2)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    assert size.cache_elements == 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert size.context == config.max_position_embeddings
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trained == 4 * size.linear_width


def test_findings_name_the_engine_and_whether_memory_suffices(smollm2: Path) -> None:
    found = diagnose(StageConfig(), smollm2)
    topics = [finding.topic for finding in found]
    assert list(dict.fromkeys(topics)) == [
        "machine", "installed", "extra", "verifiers", "engine", "model", "search", "training",
    ]  # fmt: skip
    texts = {finding.topic: finding.text for finding in found}
    assert "transformers" in texts["engine"]
    assert "135 M parameters" in texts["model"]
    assert "engine.dtype=auto: this CPU has" in texts["model"]
    tight = StageConfig.model_validate({"engine": {"memory": 0.001}})
    (search,) = [finding for finding in diagnose(tight, smollm2) if finding.topic == "search"]
    assert search.level == "note"
    assert "engine.memory=" in search.remedy


def test_a_model_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match="no such"):
        diagnose(StageConfig(), Path("nowhere"))

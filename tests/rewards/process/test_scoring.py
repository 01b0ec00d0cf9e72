"""Packed forward passes: every unique token once, the same states as each sequence alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, MambaConfig, MambaModel

from mcts_dpo.rewards.process.scoring import Scorer, packs
from tests.rewards.process.world import SHAPE

KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {},
    "mistral": {"sliding_window": 5},
    "gemma2": {"sliding_window": 5, "head_dim": 8, "attn_logit_softcapping": None},
}


def model_of(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SHAPE | {"vocab_size": 50} | changes))
    return AutoModel.from_config(config).eval()


def tree_sequences(count: int = 14) -> list[list[int]]:
    """Sequences of a tree with repeats and prefixes of others, in random order."""
    draw = np.random.default_rng(1)
    found = [draw.integers(0, 50, 6).tolist()]
    for _ in range(count):
        above = found[int(draw.integers(0, len(found)))]
        found.append([*above, *draw.integers(0, 50, int(draw.integers(1, 6))).tolist()])
    return [found[index] for index in draw.permutation(len(found))] + [found[3]]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("pack_tokens", [1, 30, 4096])
def test_states_in_a_pack_are_those_of_each_sequence_alone(kind: str, pack_tokens: int) -> None:
    model = model_of(kind, **KINDS[kind])
    sequences = tree_sequences()
    places = [[0, len(ids) - 1, len(ids) // 2] for ids in sequences]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in sequences]
    scorer = Scorer(model, pack_tokens=pack_tokens)
    assert scorer.why_alone is None
    for found, states, where in zip(scorer.states(sequences, places), alone, places, strict=True):
        assert torch.allclose(found, states[where], atol=1e-5)


def test_each_unique_token_is_computed_once() -> None:
    sequences = tree_sequences()
    unique = {tuple(ids[: length + 1]) for ids in sequences for length in range(len(ids))}
    (one,) = Scorer(model_of("qwen2")).passes(sequences)
    assert len(one.states) == len(unique) < sum(map(len, sequences)) / 2


def test_a_model_that_cannot_be_packed_scores_one_path_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    mamba = MambaModel(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)).eval()
    scorer = Scorer(mamba)
    assert "MambaModel has linear_attention layers" in caplog.text
    assert "paths are scored one at a time" in caplog.text
    sequences = tree_sequences()
    assert len(list(scorer.passes(sequences))) == len({tuple(ids) for ids in sequences})
    for ids, found in zip(sequences, scorer.states(sequences, [[len(ids) - 1] for ids in sequences]), strict=True):
        with torch.no_grad():
            expected = mamba(input_ids=torch.tensor([ids])).last_hidden_state[0, -1:]
        assert torch.allclose(found, expected, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12), st.integers(0, 20))
def test_packs_hold_each_sequence_once_and_at_most_so_many_tokens(given: list[list[int]], most: int) -> None:
    found = packs([np.array(ids, np.int32) for ids in given], most)
    assert sorted(index for pack in found for index in pack) == list(range(len(given)))
    for pack in found:
        unique = {tuple(given[i][: length + 1]) for i in pack for length in range(len(given[i]))}
        assert len(unique) <= max(most, len(given[pack[0]]))
        assert most or len({tuple(given[i]) for i in pack}) == 1

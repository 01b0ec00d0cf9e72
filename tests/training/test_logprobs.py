from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mcts_dpo.common.errors import InputError
from mcts_dpo.training.data.batches import Sequences, make_batch, sequences
from mcts_dpo.training.logprobs import check_readable, score
from tests.training.world import VOCABULARY, naive_logprobs, random_rows, tiny_model

ROWS = random_rows(9, seed=1)


def scored(rows: list[Any]) -> Sequences:
    parts = [[np.array(part, dtype=np.int32) for part in row[:3]] for row in rows]
    prompt = np.array([len(row[0]) for row in rows])
    prefix = np.array([len(row[1]) for row in rows])
    return sequences(parts, prompt, prompt + prefix, np.ones(len(rows)))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_score_equals_one_unpadded_sequence_at_a_time(dtype: torch.dtype, bound: float) -> None:
    model = tiny_model(dtype=dtype)
    with torch.no_grad():
        found = score(model, make_batch(scored(ROWS), np.arange(len(ROWS))))
        naive = [naive_logprobs(model, prompt, [*prefix, *chosen]) for prompt, prefix, chosen, _ in ROWS]
    assert found.tokens.dtype == dtype
    assert (found.tokens - torch.cat(naive)).abs().max() < bound
    steps = torch.stack([one[-len(row[2]) :].sum() for one, row in zip(naive, ROWS, strict=True)])
    assert (found.steps - steps).abs().max() < bound


def gradients(model: Any, groups: list[list[int]], **options: Any) -> dict[str, torch.Tensor]:
    """Gradients of a sum of squares of tokens' and steps' log-probabilities, accumulated over the groups."""
    model.zero_grad()
    for group in groups:
        found = score(model, make_batch(scored(ROWS), np.array(group)), **options)
        torch.autograd.backward(found.tokens.square().sum() + found.steps.square().sum())
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
def test_padding_and_grouping_change_no_gradient(tied: bool) -> None:
    model = tiny_model(tied=tied, dtype=torch.float64)
    alone = gradients(model, [[row] for row in range(len(ROWS))])
    for groups in ([list(range(9))], [[8, 0, 3], [1, 2], [4, 7, 6, 5]]):
        together = gradients(model, groups)
        assert together.keys() == alone.keys()
        for name, gradient in together.items():
            assert (gradient - alone[name]).abs().max() < 1e-10, name


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("rows", [1, 4])
def test_reading_out_in_pieces_changes_nothing(frozen: bool, rows: int) -> None:
    model = tiny_model(tied=False, dtype=torch.float64)
    whole = gradients(model, [list(range(9))])
    model.lm_head.requires_grad_(not frozen)
    pieces = gradients(model, [list(range(9))], logits_at_once=rows * VOCABULARY)
    assert ("lm_head.weight" in pieces) is not frozen
    for name, gradient in pieces.items():
        assert (gradient - whole[name]).abs().max() < 1e-10, name


def test_the_frozen_readout_passes_gradcheck_with_a_bias() -> None:
    from mcts_dpo.training.logprobs import _readout

    torch.manual_seed(0)
    head = torch.nn.Linear(5, 7, dtype=torch.float64).requires_grad_(False)
    states = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, 3, 3, 1, 2])
    assert torch.autograd.gradcheck(lambda given: _readout(given, head, targets, 14), (states,))


def test_a_head_with_a_bias_is_read_whole() -> None:
    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    ).double()
    torch.nn.init.normal_(model.lm_head.bias)
    model.eval()
    check_readable(model, torch.tensor([[3, 4, 5]]))
    with torch.no_grad():
        found = score(model, make_batch(scored(ROWS[:3]), np.arange(3))).tokens
        naive = [naive_logprobs(model, prompt, [*prefix, *chosen]) for prompt, prefix, chosen, _ in ROWS[:3]]
    assert (found - torch.cat(naive)).abs().max() < 1e-12


def test_models_that_score_would_misread_are_refused() -> None:
    sizes = {"vocab_size": VOCABULARY, "num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16}
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            **sizes,
            intermediate_size=24,
            num_key_value_heads=1,
            head_dim=8,
            final_logit_softcapping=0.5,
            initializer_range=0.5,
        )
    )
    with pytest.raises(InputError, match="Gemma2ForCausalLM: its logits are not a linear readout"):
        check_readable(capped, torch.tensor([[3, 4, 5]]))
    two_halves = T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, d_model=16, d_ff=16, num_layers=1, d_kv=8))
    with pytest.raises(InputError, match="T5ForConditionalGeneration: not a causal language model"):
        check_readable(two_halves, torch.tensor([[3, 4, 5]]))

"""Packed training against one unpadded sequence per step: the same loss, the same gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from mcts_dpo.common.errors import InputError
from mcts_dpo.models import packed_forward
from mcts_dpo.models.attention import tree as attention
from mcts_dpo.training import TrainingSettings
from mcts_dpo.training.data.batches import Sequences, sequences
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.data.packing import Packed, pack
from mcts_dpo.training.logprobs import check_packable, score
from mcts_dpo.training.tasks import PolicyTrainingTask
from tests.training.world import VOCABULARY, tiny_model

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "initializer_range": 0.4,
}


def mistral(**changes: Any) -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SHAPE, **changes)).eval()


def qwen3() -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE)).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "llama": tiny_model,
    "qwen3": qwen3,
    "mistral, window of 7": lambda: mistral(sliding_window=7),
}


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles also for the small packs of these tests."""
    monkeypatch.setattr(attention, "BLOCK", 8)


def tree_pairs(seed: int = 0, trees: int = 2, depth: int = 4, children: int = 3) -> TrainingData:
    """All pairs of siblings along the first child, with weights, smoothing, margins, and observations in between."""
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> np.ndarray:
        return rng.integers(2, VOCABULARY, rng.integers(low, high)).astype(np.int32)

    parts, unscored, scored_from, step_from = [], [], [], []
    for _ in range(trees):
        prompt, prefix, environment = draw(3, 9), np.empty(0, np.int32), [False] * 0
        for _ in range(depth):
            steps = [draw(2, 6) for _ in range(children)]
            masks = [[*(rng.random(len(step) - 1) < 0.3).tolist(), False] for step in steps]
            for better in range(children):
                for worse in range(better + 1, children):
                    for place in (better, worse):
                        parts.append((prompt, prefix, steps[place]))
                        unscored += [False] * len(prompt) + environment + masks[place]
                        begin = len(prompt) + len(prefix)
                        step_from.append(begin)
                        # The chosen sequence serves the NLL too, from its first step on.
                        scored_from.append(len(prompt) if place == better else begin)
            prefix, environment = np.concatenate([prefix, steps[0]]), environment + masks[0]
    rows = len(parts) // 2
    weight = rng.uniform(0.3, 2, rows)
    imitation = np.stack([weight, np.zeros(rows)], axis=1).ravel()
    data = sequences(parts, np.array(scored_from), np.array(step_from), imitation, 2, np.array(unscored))
    row_columns = {"smoothing": rng.uniform(0, 0.4, rows), "margin": rng.uniform(0.1, 2, rows)}
    return TrainingData(data, weight, row_columns, {"start": np.zeros(len(data))}, "digest", "pairs")


def alone(model: Any, data: Sequences) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities of each sequence's scored tokens, and of its step: one unpadded sequence at a time."""
    tokens, steps = [], []
    assert data.unscored is not None
    for i in range(len(data)):
        ids = torch.from_numpy(data.of(i).astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1]
        every = logits.log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
        wanted = torch.from_numpy(~data.unscored[data.offsets[i] + 1 : data.offsets[i + 1]])
        tokens.append(every[data.scored_from[i] - 1 :][wanted[data.scored_from[i] - 1 :]])
        steps.append((every * wanted)[data.step_from[i] - 1 :].sum())
    return tokens, torch.stack(steps)


def naive_loss(model: Any, before: Any, training_data: TrainingData, settings: TrainingSettings) -> Tensor:
    """NLL and preference loss as algorithm.md has them, from sequences alone."""
    data = training_data.sequences
    tokens, steps = alone(model, data)
    with torch.no_grad():
        _, reference = alone(before, data)
    h = settings.objective.beta * (steps - reference).view(-1, 2) @ torch.tensor([1.0, -1.0], dtype=steps.dtype)
    columns = {name: torch.from_numpy(values).to(h.dtype) for name, values in training_data.row_columns.items()}
    if settings.objective.kind == "odpo":
        losses = -torch.sigmoid(h - columns["margin"]).log()
    else:
        losses = -(1 - columns["smoothing"]) * torch.sigmoid(h).log() - columns["smoothing"] * torch.sigmoid(-h).log()
    weight = torch.from_numpy(training_data.weight).to(h.dtype)
    imitated = torch.stack([one.sum() for one in tokens[::2]])
    counts = torch.tensor([float(len(one)) for one in tokens[::2]], dtype=h.dtype)
    nll = -(weight @ imitated) / (weight @ counts)
    return nll + 0.5 * (weight @ losses) / weight.sum()


def flat_gradient(model: Any) -> Tensor:
    gradient = torch.cat([one.grad.flatten() for one in model.parameters()])
    model.zero_grad()
    return gradient


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("objective", ["step_dpo", "odpo"])
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_equals_that_of_one_sequence_at_a_time(
    name: str, objective: Any, dtype: torch.dtype, bound: float, wide_norms: None, small_tiles: None
) -> None:
    settings = TrainingSettings(objective={"kind": objective, "beta": 0.7, "preference_weight": 0.5})
    model, before = MODELS[name]().to(dtype), MODELS[name]().to(dtype)
    with torch.no_grad():
        for one in before.parameters():
            one += 0.05 * torch.randn(one.shape, dtype=dtype, generator=torch.Generator().manual_seed(one.numel()))
    training_data = tree_pairs()
    check_packable(model, torch.tensor([[3, 4, 5]]))
    torch.autograd.backward(naive_loss(model, before, training_data, settings))
    expected = flat_gradient(model)
    task = PolicyTrainingTask(training_data, settings, torch.device("cpu"))
    update = np.arange(task.rows)
    # One pack, and trees cut between their sibling groups.
    for budget in (4096, 40):
        passes = task.passes(update, budget)
        assert (len(passes) > 3) == (budget == 40)
        reference = torch.zeros(task.sequences, dtype=dtype)
        for one in passes:
            with torch.no_grad():
                which, values, _ = task.reference(before, rows=one)
            reference[which] = values
        for one in passes:
            torch.autograd.backward(task.micro_batch_loss(model, rows=one, update=update, reference=reference).loss)
        found = flat_gradient(model)
        assert (found - expected).norm() / expected.norm() < bound


@pytest.mark.parametrize("tied", [True, False])
def test_checkpointed_layers_and_a_frozen_head_change_nothing(tied: bool, wide_norms: None, small_tiles: None) -> None:
    data = tree_pairs().sequences
    packed = pack(data, np.arange(len(data)))
    gradients = []
    for recompute in (False, True):
        model = tiny_model(tied=tied, dtype=torch.float64)
        if not tied:
            model.lm_head.requires_grad_(False)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
        torch.autograd.backward(score(model, packed).steps.square().sum())
        gradients.append([one.grad for one in model.parameters() if one.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain - recomputed).abs().max() < 1e-10


def no_mask(model: Any, packed: Packed) -> Tensor:
    """Tree positions, and causal attention over all that stands before."""
    model.set_attn_implementation("sdpa")
    length = packed.input_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    return states(model, packed, attention_mask=causal)


def boolean_mask_under_eager(model: Any, packed: Packed) -> Tensor:
    """Eager attention adds the mask to the scores: True is + 1."""
    model.set_attn_implementation("eager")
    places = torch.arange(packed.input_ids.shape[1])
    return states(model, packed, attention_mask=attention.Tree(packed.end, places).mask(None)[None, None])


def ones_for_a_mask(model: Any, packed: Packed) -> Tensor:
    """A 2-D mask without padding is a causal mask."""
    model.set_attn_implementation("sdpa")
    return states(model, packed, attention_mask=torch.ones_like(packed.input_ids))


def default_positions(model: Any, packed: Packed) -> Tensor:
    """Places in the pack for positions."""
    model.set_attn_implementation(attention.NAME)
    tree = attention.Tree(packed.end, packed.position_ids[0])
    return states(model, packed, attention_mask=packed.end[None, None, None], tree=tree, position_ids=None)


def states(model: Any, packed: Packed, **options: Any) -> Tensor:
    given = {"position_ids": packed.position_ids, "use_cache": False} | options
    found: Tensor = model.base_model(input_ids=packed.input_ids, **given).last_hidden_state
    return found


@pytest.mark.parametrize("mistake", [no_mask, boolean_mask_under_eager, ones_for_a_mask, default_positions])
def test_silent_mistakes_would_be_seen(mistake: Any, wide_norms: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_model(dtype=torch.float64), tree_pairs().sequences
    packed = pack(data, np.arange(len(data)))
    with torch.no_grad():
        _, expected = alone(model, data)
        assert (score(model, packed).steps - expected).abs().max() < 1e-12
        monkeypatch.setattr(packed_forward, "packed_states", mistake)
        assert (score(model, packed).steps - expected).abs().max() > 1
        with pytest.raises(InputError, match="gives other states in a pack than alone"):
            check_packable(model, torch.tensor([[3, 4, 5, 9, 2, 7]]))


def test_models_that_mix_the_branches_are_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM, Qwen3NextConfig, Qwen3NextForCausalLM

    ids = torch.tensor([[3, 4, 5]])
    mamba = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(InputError, match="MambaForCausalLM has linear_attention layers"):
        check_packable(mamba.eval(), ids)
    hybrid = Qwen3NextForCausalLM(
        Qwen3NextConfig(
            **SHAPE,
            num_experts=0,
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=4,
            linear_value_head_dim=4,
        )
    )
    with pytest.raises(InputError, match="Qwen3NextForCausalLM has linear_attention layers"):
        check_packable(hybrid.eval(), ids)

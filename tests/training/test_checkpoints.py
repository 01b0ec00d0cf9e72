from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_model, load_tokenizer, stored_dtype
from mcts_dpo.training import LoraSettings, TrainingSettings, train
from mcts_dpo.training.checkpoints import load_train_state, save_policy
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

IDS = torch.tensor([[3, 9, 4, 4, 20, 17, 2]])
LORA = TrainingSettings(
    optimiser={"lr": 0.02}, data={"batch_size": 6, "epochs": 2}, lora=LoraSettings(rank=3, alpha=9.0)
)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_the_merged_policy_equals_the_adapters_on_the_old_one(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "tiny")
    summary = train(policy, pairs_of(random_rows(12), digest_of(policy)), tmp_path / "out", LORA)
    before, merged = load_model(policy, "float32"), load_model(tmp_path / "out", "float32")
    start = logits(before)
    adapted = PeftModel.from_pretrained(before, tmp_path / "out" / "adapter").eval()
    assert (logits(merged) - logits(adapted)).abs().max() < 1e-5
    assert (logits(merged) - start).abs().max() > 0.1
    # The directory is a plain model: no adapter is needed to read it, and the tokenizer is there.
    assert digest_of(tmp_path / "out") == digest_of(policy)
    adapters = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert summary.parameters == sum(tensor.numel() for tensor in adapters.values())
    assert not any("lora" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert {name.split(".")[-3] for name in adapters} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }


def test_named_targets_alone_are_adapted(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "tiny")
    settings = LORA.model_copy(update={"lora": LoraSettings(rank=2, targets=("q_proj", "v_proj"))})
    train(policy, pairs_of(random_rows(6), digest_of(policy)), tmp_path / "out", settings)
    before = load_file(policy / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "v_proj"}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("lm_head",), "'lm_head': adapters on the head cannot be trained here"),
        (("q_proj", "lm_head"), "'lm_head': adapters on the head cannot be trained here"),
        (("embed_tokens",), "'embed_tokens': adapters on the embeddings cannot be trained here"),
        (("model.embed_tokens", "v_proj"), "'model.embed_tokens': adapters on the embeddings cannot be"),
        (("q_proj", "w_pack"), "'w_pack': no layer of this policy has that name"),
        (("all-linear",), "'all-linear': no layer of this policy has that name"),
        (("self_attn",), "training.lora.targets: ('self_attn',): "),
        (("norm",), "training.lora.targets: ('norm',): "),
    ],
)
def test_targets_that_cannot_be_trained_are_refused_by_name(
    tmp_path: Path, tied: bool, targets: tuple[str, ...], told: str
) -> None:
    policy = tiny_policy(tmp_path / "tiny", tied=tied)
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        load_train_state(policy, TrainingSettings(lora=LoraSettings(rank=2, targets=targets)))
    message = str(caught.value)
    assert "\n" not in message
    accepted = message.partition("accepted: ")[2]
    assert "q_proj" in accepted
    assert "lm_head" not in accepted


@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj",), ("model.layers.0.mlp.up_proj", "v_proj"), ("layers.1.self_attn.o_proj",)]
)
@pytest.mark.parametrize("packing", [True, False])
def test_every_adapter_that_is_counted_is_trained(tmp_path: Path, targets: object, packing: bool) -> None:
    policy = tiny_policy(tmp_path / "tiny", tied=False)
    lora = LoraSettings.model_validate({"rank": 2, "targets": targets})
    settings = TrainingSettings(
        optimiser={"lr": 0.02}, data={"batch_size": 6, "epochs": 2, "packing": packing}, lora=lora
    )
    train(policy, pairs_of(random_rows(12), digest_of(policy)), tmp_path / "out", settings)
    adapters = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert adapters
    for name, tensor in adapters.items():  # B starts at zero
        assert "lora_B" not in name or bool(tensor.abs().max() > 0), name


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=3)])
def test_bf16_weights_are_updated_through_float32_master_weights(tmp_path: Path, lora: LoraSettings | None) -> None:
    """Updates far below the resolution of bf16 must add up instead of being rounded away one by one."""
    policy = tiny_policy(tmp_path / "tiny", dtype=torch.bfloat16)
    settings = TrainingSettings(dtype="bfloat16", lora=lora)
    trained = load_train_state(policy, settings)
    assert {weight.dtype for weight in trained.model.parameters()} == {torch.bfloat16}
    assert {master.dtype for master in trained.master_weights} == {torch.float32}
    # Rotary frequencies are no weights and stay exact.
    assert trained.model.model.rotary_emb.inv_freq.dtype == torch.float32
    start = [master.detach().clone() for master in trained.master_weights]
    optimizer = torch.optim.SGD(trained.master_weights, lr=1.0)
    for _ in range(100):
        for weight in trained.weights:
            weight.grad = torch.full_like(weight, 2**-16)
        trained.collect_gradients()
        optimizer.step()
        optimizer.zero_grad()
        trained.publish_master_weights()
    for weight, master, before in zip(trained.weights, trained.master_weights, start, strict=True):
        assert torch.allclose(master, before - 100 * 2**-16, atol=1e-5)
        assert torch.equal(weight, master.bfloat16())


def test_checkpointed_layers_are_computed_again_without_dropout(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "tiny")
    trained = load_train_state(policy, TrainingSettings(gradient_checkpointing=True))
    layer, calls = trained.model.model.layers[0], []
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    found = trained.model(input_ids=IDS, use_cache=False).logits.sum()
    assert len(calls) == 1
    torch.autograd.backward(found)
    assert len(calls) == 2
    assert not any(module.training for module in layer.modules() if module is not layer)


def test_gradients_of_several_passes_add_up_in_float32(tmp_path: Path) -> None:
    trained = load_train_state(tiny_policy(tmp_path / "tiny"), TrainingSettings(dtype="bfloat16"))
    for _ in range(3):
        trained.weights[0].grad = torch.full_like(trained.weights[0], 1.0)
        trained.collect_gradients()
        trained.weights[0].grad = torch.full_like(trained.weights[0], 2**-12)
        trained.collect_gradients()
    assert trained.weights[0].grad is None
    assert trained.master_weights[0].grad is not None
    assert torch.equal(trained.master_weights[0].grad, torch.full_like(trained.master_weights[0], 3 * (1 + 2**-12)))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_policy_is_saved_in_the_dtype_that_it_came_in(
    tmp_path: Path, stored: torch.dtype, lora: LoraSettings | None
) -> None:
    policy = tiny_policy(tmp_path / "tiny", dtype=stored)
    settings = TrainingSettings(optimiser={"lr": 0.01}, lora=lora)
    train(policy, pairs_of(random_rows(6), digest_of(policy)), tmp_path / "out", settings)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {stored}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    assert stored_dtype(tmp_path / "out") == stored
    if lora:
        assert stored_dtype(tmp_path / "out" / "adapter") == stored


def test_adapters_are_merged_in_float32(tmp_path: Path) -> None:
    """bf16(W + BA), rounded once, not bf16(W) + bf16(BA)."""
    policy = tiny_policy(tmp_path / "tiny", dtype=torch.bfloat16)
    train(policy, pairs_of(random_rows(12), digest_of(policy)), tmp_path / "out", LORA)
    before, after = load_file(policy / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    adapters = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapters.values()} == {torch.float32}
    name = "model.layers.1.mlp.down_proj"
    a, b = (adapters[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = (before[f"{name}.weight"].float() + 9.0 / 3 * b @ a).bfloat16()
    assert torch.equal(after[f"{name}.weight"], expected)


def test_adapters_name_the_policy_that_they_adapt(tmp_path: Path) -> None:
    """Also where that is an adapter itself: on its base alone they would be another policy."""
    policy = tiny_policy(tmp_path / "tiny")
    table = pairs_of(random_rows(12), digest_of(policy))
    train(policy, table, tmp_path / "one", LORA)
    train(tmp_path / "one" / "adapter", table, tmp_path / "two", LORA.model_copy(update={"seed": 1}))
    for name in ("one", "two"):
        whole, adapted = (logits(load_model(tmp_path / name / part, "float32")) for part in ("", "adapter"))
        assert (whole - adapted).abs().max() < 1e-5


def test_an_untrained_policy_is_saved_as_it_was(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "tiny", tied=False)
    trained = load_train_state(policy, TrainingSettings(lora=LoraSettings(rank=2)))
    save_policy(trained, load_tokenizer(policy), tmp_path / "out")
    assert torch.equal(logits(load_model(tmp_path / "out", "float32")), logits(load_model(policy, "float32")))

"""Loading models and tokenizers from every kind of source, and what is said when that fails."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import (
    default_dtype,
    has_bfloat16,
    load_model,
    load_skeleton,
    load_tokenizer,
    model_size,
    stored_dtype,
    tokenizer_digest,
)
from tests.engines.tiny import make_byte_tokenizer, make_tokenizer, save_model

INPUTS = torch.tensor([[4, 5, 6, 7]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def adapter(llama: Path, tmp_path: Path) -> Path:
    """A LoRA adapter whose two halves are both random, so that it changes the model."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(INPUTS).logits.float()


def write_gguf(path: Path, directory: Path) -> Path:
    """The tiny Llama in `directory` as a GGUF file in float16, with a byte-pair tokenizer of its own."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<unk>", "<eos>", "a", "b", "ab", "Ġ", "Ċ"]
    tokens += [f"x{i}" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(1)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        array = weight.numpy()
        for part, count in heads.items():
            if part in name:  # llama.cpp keeps the two halves of each rotary pair side by side
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        assert target is not None
        writer.add_tensor(target, array.astype(np.float32 if array.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_directory(llama: Path) -> None:
    model = load_model(llama)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # "auto" for a small model on a CPU
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(llama).eval()))
    assert {p.dtype for p in load_model(str(llama), "bfloat16").parameters()} == {torch.bfloat16}
    assert load_tokenizer(llama).convert_ids_to_tokens([1, 4]) == ["<eos>", "a"]


def test_an_adapter_is_merged_in_float32(adapter: Path, llama: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(base, adapter).eval())
    merged = load_model(adapter)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    assert (expected - logits(load_model(llama))).abs().max() > 0.1
    assert type(merged).__name__ == "LlamaForCausalLM"
    exact = {name: weight.to(torch.bfloat16) for name, weight in merged.state_dict().items()}
    for name, weight in load_model(adapter, "bfloat16").state_dict().items():
        assert torch.equal(weight, exact[name])
    # It brings no tokenizer: the base's serves.
    assert tokenizer_digest(load_tokenizer(adapter)) == tokenizer_digest(load_tokenizer(llama))


def test_an_adapter_may_name_its_base_relative_to_itself(adapter: Path, llama: Path) -> None:
    shutil.copytree(llama, adapter / "base")
    config = json.loads((adapter / "adapter_config.json").read_text())
    before = logits(load_model(adapter))
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "base"}))
    assert torch.equal(logits(load_model(adapter)), before)
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="base_model_name_or_path: None"):
        load_model(adapter)


def test_an_adapter_of_another_base(adapter: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", hidden_size=32)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(other)}))
    with pytest.raises(InputError, match="adapter for its base model") as caught:
        load_model(adapter)
    assert "\n" not in str(caught.value)


def test_a_gguf_file(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    assert stored_dtype(path) is None
    model = load_model(path)
    torch.testing.assert_close(logits(model), logits(load_model(llama)), atol=2e-2, rtol=2e-2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model(INPUTS).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    tokenizer = load_tokenizer(path)
    assert tokenizer("ab b", add_special_tokens=False)["input_ids"] == [4, 5, 3]
    # Saved, it is an ordinary model again.
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(load_model(tmp_path / "saved")), logits(model))
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_what_is_no_model(load: object, tmp_path: Path) -> None:
    assert callable(load)
    cases: list[tuple[str | Path, str]] = []
    cases.append((tmp_path / "nowhere", "no such model file or directory"))
    cases.append(("some/deep/path", "no such model file or directory"))
    cases.append(("missing.gguf", "no such model file or directory"))
    (tmp_path / "empty").mkdir()
    cases.append((tmp_path / "empty", "config.json"))
    (tmp_path / "notes.txt").write_text("hello")
    cases.append((tmp_path / "notes.txt", "not a model"))
    (tmp_path / "fake.gguf").write_text("hello")
    cases.append((tmp_path / "fake.gguf", "not a GGUF file"))
    for model, named in cases:
        with pytest.raises(InputError, match=named) as caught:
            load(model)
        assert str(model) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_truncated_gguf_file(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"tiny\.gguf"):
        load_model(path)


def test_a_model_without_tokenizer(llama: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(llama / name, tmp_path / name)
    assert load_model(tmp_path) is not None
    with pytest.raises(InputError, match="model without tokenizer"):
        load_tokenizer(tmp_path)


def test_a_broken_directory(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no causal language model could be loaded"):
        load_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="no tokenizer could be loaded"):
        load_tokenizer(tmp_path)
    config = json.loads((llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_a_name_that_no_hub_knows() -> None:
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match="no-such-owner/no-such-model: no such file or directory, and no"):
            load("no-such-owner/no-such-model")  # type: ignore[operator]


def test_the_digest_of_a_tokenizer_is_its_content(llama: Path) -> None:
    loaded = load_tokenizer(llama)
    assert tokenizer_digest(loaded) == tokenizer_digest(load_tokenizer(llama))
    others = [make_byte_tokenizer(), make_tokenizer("<end>"), load_tokenizer(llama)]
    others[2].chat_template = "{{ messages }}"
    assert len({tokenizer_digest(tokenizer) for tokenizer in [loaded, *others]}) == 4


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx2": True, "fma3": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_is_chosen_where_the_cpu_has_it(capabilities: dict[str, object], native: bool) -> None:
    assert has_bfloat16("cpu", capabilities) is native
    assert has_bfloat16("cuda", capabilities)


def test_auto_follows_this_machine() -> None:
    large = torch.bfloat16 if has_bfloat16("cpu") else torch.float32
    assert default_dtype(10**9, "cpu") == large
    assert default_dtype(10**6, "cpu") == torch.float32
    assert default_dtype(10**6, "cuda") == torch.bfloat16


def one_line(model: Path, load: Callable[[Path], object] = load_model) -> str:
    with pytest.raises(InputError) as caught:
        load(model)
    message = str(caught.value)
    assert message.startswith(str(model))
    assert "\n" not in message
    return message


def configured(directory: Path, **changes: Any) -> Path:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    return directory


@pytest.fixture
def own(llama: Path, tmp_path: Path) -> Path:
    """The tiny Llama in a folder that a test may spoil."""
    return Path(shutil.copytree(llama, tmp_path / "own"))


def without_tensors(directory: Path, *parts: str) -> None:
    held = load_file(directory / "model.safetensors")
    kept = {name: tensor for name, tensor in held.items() if not any(part in name for part in parts)}
    assert len(kept) < len(held)
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["layers.1.mlp.up_proj", "model.norm", "embed_tokens", "layers.0.self_attn.q_proj"])
def test_missing_tensors_are_named_and_not_made_up(own: Path, part: str) -> None:
    without_tensors(own, part)
    message = one_line(own)
    assert part in message
    assert "lack the tensor" in message


def test_many_missing_tensors_are_counted(own: Path) -> None:
    without_tensors(own, "layers.1.")
    assert re.search(r"lack the tensors model\.layers\.1\.\S+, .* and \d+ more, without which", one_line(own))
    configured(own, num_hidden_layers=5)
    assert "layers.1." in one_line(own)


def test_an_untied_head_that_is_not_there(own: Path) -> None:
    configured(own, tie_word_embeddings=False)
    without = json.loads((own / "config.json").read_text())
    assert without["tie_word_embeddings"] is False
    if "lm_head.weight" in load_file(own / "model.safetensors"):
        without_tensors(own, "lm_head")
    assert "lm_head.weight" in one_line(own)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**9),
        ("hidden_size", 0),
        ("vocab_size", -5),
        ("num_attention_heads", -2),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
        ("intermediate_size", -1),
        ("max_position_embeddings", 0),
        ("head_dim", -4),
        ("num_hidden_layers", None),
        ("num_hidden_layers", "two"),
        ("num_hidden_layers", 1.5),
        ("rms_norm_eps", -1.0),
    ],
)
def test_configurations_that_no_model_can_have(own: Path, field: str, value: object) -> None:
    configured(own, **{field: value})
    for load in (load_model, load_skeleton, model_size, stored_dtype, load_tokenizer):
        one_line(own, load)
    assert field in one_line(own)
    if isinstance(value, int):
        assert f"{field}: {value} (accepted: " in one_line(own)


def test_a_rotation_without_a_base(own: Path) -> None:
    configured(own, rope_parameters={"rope_type": "default", "rope_theta": 0.0})
    assert "rope_theta: 0.0 (accepted: a number above 0)" in one_line(own)


@pytest.mark.parametrize("text", ["[1]", "{", "3", "9" * 5000, "[" * 100_000, '{"base_model_name_or_path": 3}'])
def test_the_file_of_an_adapter_that_says_nothing(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    for load in (load_model, load_tokenizer, stored_dtype, model_size):
        one_line(adapter, load)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"hidden_size":' + "9" * 5000 + "}", "[" * 100_000, '{"hidden_act": "no"}']
)
def test_a_configuration_that_cannot_be_read(own: Path, text: str) -> None:
    (own / "config.json").write_text(text)
    for load in (load_model, load_tokenizer, load_skeleton, stored_dtype, model_size):
        one_line(own, load)


def test_a_model_cut_short_is_told_in_one_line(
    own: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configured(own, num_hidden_layers=1)
    with caplog.at_level(logging.WARNING):
        load_model(own)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{own}: the model has no place for the tensors model.layers.1.")
    without_tensors(own, "embed_tokens")
    with pytest.raises(InputError, match="embed_tokens"):
        load_model(own)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")  # no report of the library's own


def test_an_adapter_that_is_its_own_base(adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    for base in (str(adapter), f"../{adapter.name}", str(other)):
        for directory, named in ((adapter, base), (other, f"{adapter}/")):
            config = json.loads((directory / "adapter_config.json").read_text())
            (directory / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
        for load in (load_model, load_tokenizer, stored_dtype, model_size):
            assert "leads back to the adapter" in one_line(adapter, load)


def test_an_adapter_without_some_of_its_tensors(adapter: Path) -> None:
    held = load_file(adapter / "adapter_model.safetensors")
    lost = next(name for name in held if "lora_B" in name)
    save_file({name: held[name] for name in held if name != lost}, adapter / "adapter_model.safetensors")
    assert f"lacks the tensor {lost}" in one_line(adapter)
    foreign = held | {lost.replace("layers.0", "layers.7"): held[lost].clone()}
    save_file(foreign, adapter / "adapter_model.safetensors")
    assert "for which its base model has no place" in one_line(adapter)


def test_nobody_is_asked_about_code_that_comes_with_a_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    (own / "own_code.py").write_text("raise SystemExit('this ran')\n")
    auto = {"AutoConfig": "own_code.Config", "AutoModelForCausalLM": "own_code.Model"}
    configured(own, model_type="their_own", auto_map=auto)
    for load in (load_model, load_skeleton, stored_dtype, model_size):
        assert "code of its own, which is not run" in one_line(own, load)
    settings = json.loads((own / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "TheirTokenizer", "auto_map": {"AutoTokenizer": ["own_code.T", None]}}
    (own / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "\n" not in one_line(own, load_tokenizer)

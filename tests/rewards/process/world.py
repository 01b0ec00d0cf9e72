"""Tiny random judges with the architecture, the tokenizer's tags and the files' layout of the real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from mcts_dpo.rewards import SolutionPath
from mcts_dpo.rewards.process import ProcessSettings
from mcts_dpo.rewards.process.judge import Item, ProcessJudge, open_judge

QUESTION = "Tom has 3 apples and buys 2. How many?"
STEPS = (
    ("3 + 2 = 5\n", "5 - 1 = 4\n", "The answer is 5."),
    ("3 + 2 = 5\n", "So 5\n", "no é, 6"),
    ("3 - 2 = 1\n",),
    ("3 + 2 = 5\n", "5 - 1 = 4\n"),
)
"""Paths of one tree: some share their first steps."""

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}


def byte_tokenizer(specials: Sequence[str] = (), template: str = CHATML, **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as Qwen and Llama 3 have it; " +", " -" and a blank with five newlines are single tokens."""
    merges = [("Ċ", "Ċ"), ("ĊĊ", "ĊĊ"), ("ĊĊĊĊ", "Ċ"), ("Ġ", "ĊĊĊĊĊ"), ("Ġ", "+"), ("Ġ", "-"), ("a", "n"), ("s", "w")]
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([*ends, "<|start_header_id|>", "<|end_header_id|>", *specials])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", **options)
    fast.chat_template = template
    return fast


def piece_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """BPE on pieces that start with "▁", as Llama 2 and Mistral have it; "▁ки", "▁+" and "▁-" are single tokens."""
    merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-"), ("a", "n"), ("▁", "t")]
    letters = sorted({chr(code) for code in range(33, 127)} | set("▁киé\n"))
    names = ["<unk>", "<s>", "</s>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options
    )


def save_judge(
    folder: Path,
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    architecture: str,
    heads: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A random decoder of this kind ("qwen2", "llama", "mistral"), with `heads` among its tensors.

    Without heads it is a language model. The configuration names `architecture`, and code of its own as Qwen's does.
    """
    config = AutoConfig.for_model(kind, **(SHAPE | {"vocab_size": len(tokenizer), "sliding_window": None} | changes))
    torch.manual_seed(seed)
    model: Any = (AutoModelForCausalLM if heads is None else AutoModel).from_config(config)
    model.save_pretrained(folder)
    if heads is not None:
        path = folder / "model.safetensors"
        decoder = {f"model.{name}": tensor for name, tensor in load_file(path).items()}
        save_file(decoder | dict(heads), path, {"format": "pt"})
    about = json.loads((folder / "config.json").read_text())
    about["architectures"] = [architecture]
    if not architecture.endswith("ForCausalLM"):
        about["auto_map"] = {"AutoConfig": "configuration_rm.RMConfig", "AutoModel": f"modeling_rm.{architecture}"}
    (folder / "config.json").write_text(json.dumps(about))
    tokenizer.save_pretrained(folder)
    return folder


def random_head(*sizes: tuple[str, int, int]) -> dict[str, torch.Tensor]:
    """Tensors of linear layers: (name, outputs, inputs) each."""
    torch.manual_seed(7)
    made = {}
    for name, outputs, inputs in sizes:
        made[f"{name}.weight"] = torch.randn(outputs, inputs) * 0.3
        made[f"{name}.bias"] = torch.randn(outputs) * 0.3
    return made


def decoder(folder: Path) -> Any:
    """The plain transformers decoder of a judge."""
    return AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def language_model(folder: Path) -> Any:
    """The plain transformers language model of a judge."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def last_state(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """[width]: the last state at the last of these ids, computed alone."""
    found: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0, -1]
    return found


@torch.no_grad()
def next_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """[vocabulary]: the logits after these ids, computed alone."""
    found: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    return found


def path_of(steps: Sequence[str], **changes: Any) -> SolutionPath:
    """A path of these steps; its policy's ids are arbitrary."""
    ends = tuple(3 * (index + 1) for index in range(len(steps)))
    made = {"prompt": (1, 2), "tokens": tuple(range(3, 3 + ends[-1])), "text": "".join(steps), "steps": tuple(steps)}
    return SolutionPath(**(made | {"ends": ends} | changes))


def items() -> list[Item]:
    """The paths of `STEPS`."""
    return [(QUESTION, path_of(steps)) for steps in STEPS]


def judge_of(folder: Path, **settings: Any) -> ProcessJudge:
    """The judge at `folder`."""
    return open_judge(ProcessSettings(model=str(folder), **settings))


def stripped(steps: Sequence[str]) -> list[str]:
    """Steps without white space around them."""
    return [step.strip() for step in steps]

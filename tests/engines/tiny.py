"""Tiny random models and tokenizers, saved as ordinary Hugging Face directories."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 120
EXTRAS = {
    "llama": {"num_key_value_heads": 4},
    "qwen2": {"num_key_value_heads": 2, "sliding_window": None, "use_sliding_window": False},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 24},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
}


def make_tokenizer(eos: str = "<eos>") -> PreTrainedTokenizerFast:
    """Pieces that join without spaces, some sharing characters, so that a stop can straddle them."""
    pieces = ["<unk>", eos, "\n", "\n\n", "a", "b", "ab", "ba", ".", ".\n", "The", " answer", " is", " ", "é"]
    pieces += [str(i) for i in range(VOCABULARY - len(pieces))]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, unk_token="<unk>")


def make_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every token but the first two is one byte of a few characters, most of which take several."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted({name for piece, _ in split.pre_tokenize_str("aé€ü\n") for name in piece})
    names = ["<unk>", "<eos>", *alphabet]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def save_model(
    directory: Path,
    kind: str = "llama",
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **changes: object,
) -> Path:
    """A random model whose next-token distributions are neither flat nor certain."""
    tokenizer = tokenizer or make_tokenizer()
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(kind, **(settings | EXTRAS.get(kind, {}) | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def plain_model(directory: Path) -> torch.nn.Module:
    """The same model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def plain_logprobs(model: torch.nn.Module, prefix: tuple[int, ...], tokens: tuple[int, ...]) -> list[float]:
    """log π(token | everything before) of each of `tokens`, by one plain forward pass without a cache."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prefix, *tokens]])).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)
    return [logs[len(prefix) - 1 + i, token].item() for i, token in enumerate(tokens)]

"""A tiny untrained Llama with a word-level tokenizer, and tables over its vocabulary, for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions
from mcts_dpo.preferences.typed_table import ENVIRONMENT

VOCABULARY = 31
Tokens = Sequence[int]


def tiny_model(*, tied: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
    }
    config = LlamaConfig(**{**sizes, **changes}, tie_word_embeddings=tied)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype).eval()


def tiny_policy(folder: Path, **options: Any) -> Path:
    """A Hugging Face directory with a tiny model (see `tiny_model`) and its tokenizer."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tiny_model(**options).save_pretrained(folder)
    end = AddedToken("w1", single_word=True, special=True)  # as it is, and not the beginning of w10
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token=end).save_pretrained(folder)
    return folder


def digest_of(policy: Path) -> str:
    return tokenizer_digest(load_tokenizer(policy))


def pairs_of(
    rows: Sequence[tuple[Tokens, Tokens, Tokens, Tokens]],
    tokenizer: str = "digest",
    *,
    smoothing: Sequence[float] | None = None,
    weight: Sequence[float] | None = None,
    **changes: Any,
) -> Pairs:
    """Pairs from rows of (prompt, prefix, chosen, rejected) token ids."""
    n = len(rows)
    columns: dict[str, Any] = {
        "problem_id": [f"p{row}" for row in range(n)],
        "prompt": [_text([*prompt, *prefix]) for prompt, prefix, _, _ in rows],
        "chosen": [_text(chosen) for _, _, chosen, _ in rows],
        "rejected": [_text(rejected) for _, _, _, rejected in rows],
        "smoothing": [0.0] * n if smoothing is None else smoothing,
        "weight": [1.0] * n if weight is None else weight,
        "margin": [2.0] * n,
        "chosen_q": [1.0] * n,
        "rejected_q": [-1.0] * n,
        "chosen_logprob": [-3.0] * n,
        "rejected_logprob": [-4.0] * n,
    }
    for place, name in enumerate(("prompt_tokens", "prefix_tokens", "chosen_tokens", "rejected_tokens")):
        columns[name] = [row[place] for row in rows]
    for name in ("tree", "parent", "chosen_node", "rejected_node"):
        columns[name] = list(range(n))
    for name in ("chosen_visits", "rejected_visits", "chosen_samples", "rejected_samples"):
        columns[name] = [1] * n
    return Pairs.from_columns(columns | changes, tokenizer)


def solutions_of(
    rows: Sequence[tuple[Tokens, Tokens]], tokenizer: str = "digest", *, weight: Sequence[float] | None = None
) -> Solutions:
    """Solutions from rows of (prompt, completion) token ids."""
    n = len(rows)
    columns: dict[str, Any] = {
        "problem_id": [f"p{row}" for row in range(n)],
        "tree": [0] * n,
        "leaf": list(range(n)),
        "prompt": [_text(prompt) for prompt, _ in rows],
        "completion": [_text(completion) for _, completion in rows],
        "prompt_tokens": [prompt for prompt, _ in rows],
        "completion_tokens": [completion for _, completion in rows],
        "q": [1.0] * n,
        "weight": [1.0] * n if weight is None else weight,
    }
    return Solutions.from_columns(columns, tokenizer)


def siblings_of(
    lists: Sequence[tuple[Tokens, Tokens, Sequence[Tokens]]],
    tokenizer: str = "digest",
    *,
    q: Sequence[Sequence[float]] | None = None,
    value: Sequence[Sequence[float]] | None = None,
    samples: Sequence[Sequence[int]] | None = None,
    weight: Sequence[float] | None = None,
) -> Siblings:
    """Lists from (prompt, prefix, steps), best step first. Unless given, Q falls evenly from 1 to −1, and Q' is Q.

    A step was visited once more than it was sampled.
    """
    columns: dict[str, list[Any]] = {name: [] for name in Siblings.schema.names if not name.endswith(ENVIRONMENT)}
    for number, (prompt, prefix, steps) in enumerate(lists):
        values = np.linspace(1, -1, len(steps)).tolist() if q is None else q[number]
        counts = [1] * len(steps) if samples is None else samples[number]
        parent_value = float(np.average(values, weights=counts))
        for rank, step in enumerate(steps):
            row = {
                "problem_id": f"p{number}",
                "tree": number,
                "parent": 0,
                "node": rank + 1,
                "rank": rank,
                "prompt": _text([*prompt, *prefix]),
                "completion": _text(step),
                "label": values[rank] > parent_value,
                "prompt_tokens": prompt,
                "prefix_tokens": prefix,
                "step_tokens": step,
                "q": values[rank],
                "value": values[rank] if value is None else value[number][rank],
                "visits": counts[rank] + 1,
                "samples": counts[rank],
                "prior": 1 / len(steps),
                "logprob": -3.0 - rank,
                "parent_value": parent_value,
                "weight": 1.0 if weight is None else weight[number],
            }
            for name, cell in row.items():
                columns[name].append(cell)
    return Siblings.from_columns(columns, tokenizer)


def random_rows(n: int, seed: int = 0) -> list[tuple[list[int], list[int], list[int], list[int]]]:
    """Rows (prompt, prefix, chosen, rejected) of different lengths; chosen and rejected are never equal."""
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, rng.integers(low, high))]

    rows = []
    for _ in range(n):
        prompt, prefix, chosen, rejected = draw(1, 9), draw(0, 7), draw(1, 6), draw(1, 6)
        rows.append((prompt, prefix, chosen, rejected if rejected != chosen else [*rejected, 2]))
    return rows


def naive_logprobs(model: Any, prefix: Tokens, continuation: Tokens) -> torch.Tensor:
    """[len(continuation)] log-probabilities, one unpadded sequence through the model's own logits."""
    ids = torch.tensor([[*prefix, *continuation]])
    logits = model(input_ids=ids).logits[0, len(prefix) - 1 : -1]
    found: torch.Tensor = logits.log_softmax(-1).gather(1, ids[0, len(prefix) :, None]).squeeze(1)
    return found


def _text(tokens: Tokens) -> str:
    return " ".join(f"w{token}" for token in tokens)

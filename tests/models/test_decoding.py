"""Fast decoding is the tokenizer's own, on real vocabularies and on every prefix; so are the steps cut by it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mcts_dpo.models import decoding
from mcts_dpo.models.decoding import decode, prefixes
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.models.prompts import PromptSettings, split_steps
from mcts_dpo.toy.tokenizer import toy_tokenizer
from tests.models.test_prompts import byte_level, metaspace
from tests.reference.engine import TOKENIZER

QWEN = Path(__file__).parents[2] / ".cache" / "models" / "qwen05"
TEXT = "Step 1: 3 + 4 = 7.\n\nSo ½ of “14” is 7。\r\n  答案是 7 🙂👩‍👩‍👧\n#### 7\n \n\tThe answer is \\boxed{7}.\n�ÿ"


def slow(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def slow_split(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, step_end: str) -> list[int]:
    """A step ends with the first token at which the text so far holds one more step end: token by token."""
    text = slow(tokenizer, tokens)
    ends, lengths, token = [], [], 0
    found = text.find(step_end)
    while found >= 0:
        reach = text[: found + len(step_end)]
        while not slow(tokenizer, tokens[:token]).startswith(reach):
            token += 1
        ends.append(token)
        lengths.append(len(slow(tokenizer, tokens[:token])))
        found = text.find(step_end, max(len(reach), lengths[-1]))
    steps: list[int] = []
    start = 0
    for end, length in zip([*ends, len(tokens)], [*lengths, len(text)], strict=True):
        if text[start:length].strip() and (not steps or end > steps[-1]):
            steps.append(end)
            start = length
        elif not text[start:length].strip() and steps:
            steps[-1], start = end, length
    return steps or ([len(tokens)] if tokens else [])


def check(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> None:
    up_to = prefixes(tokenizer, tokens)
    assert [up_to(end) for end in range(len(tokens) + 1)] == [
        slow(tokenizer, tokens[:end]) for end in range(len(tokens) + 1)
    ]
    assert decode(tokenizer, tokens) == slow(tokenizer, tokens)
    for step_end in ("\n", "\n\n", "。", "Step ", ". "):
        found = split_steps(tokens, tokenizer, PromptSettings(step_end=step_end))
        assert found == slow_split(tokens, tokenizer, step_end), (step_end, tokens)


def check_real(tokenizer: PreTrainedTokenizerBase, fast: bool) -> None:
    assert (decoding._table(tokenizer) is not None) == fast
    rng = random.Random(0)
    check(tokenizer, list(tokenizer(TEXT, add_special_tokens=False)["input_ids"]))
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for _ in range(40):
        # Random ids: broken characters, special tokens, added tokens, blank lines; nothing that a text would give.
        check(
            tokenizer,
            [token for _ in range(12) for token in (rng.randrange(len(tokenizer)), *newline[: rng.randint(0, 1)])],
        )


def test_smollm2(smollm2: Path) -> None:
    check_real(load_tokenizer(smollm2), fast=True)


@pytest.mark.skipif(not QWEN.exists(), reason="Qwen's tokenizer is not on this machine")
def test_qwen() -> None:
    check_real(load_tokenizer(QWEN), fast=True)


def test_the_toy_world() -> None:
    check_real(toy_tokenizer(), fast=True)


def test_vocabularies_that_do_not_join_bytes_ask_the_tokenizer() -> None:
    check_real(metaspace(), fast=False)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_tokens(data: st.DataObject) -> None:
    tokenizer = data.draw(st.sampled_from([TOKENIZER, byte_level(), toy_tokenizer()]))
    check(tokenizer, data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=24)))


def test_added_tokens_are_seen_after_the_table_was_made() -> None:
    tokenizer = toy_tokenizer()
    check(tokenizer, [5, 6])
    tokenizer.add_tokens(["<a new one>"])
    check(tokenizer, [5, len(tokenizer) - 1, 6])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<special>"]})
    check(tokenizer, [5, len(tokenizer) - 1, 6])

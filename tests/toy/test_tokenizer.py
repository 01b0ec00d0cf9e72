"""The tokenizer's promises: exact round trips, single digits, whole words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mcts_dpo.models.loading import tokenizer_digest
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import generate
from verifiers import extract_answer

TOKENIZER = toy_tokenizer("Right so far?")


def pieces(text: str) -> list[str]:
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text)]


@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.integers(0, 2**62))
def test_the_world_is_told_in_words_digits_and_marks(seed: int) -> None:
    problem = generate(seed)
    text = f"{problem.question}\n{problem.solution}"
    told = pieces(text)
    assert "".join(told) == text
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True) == text
    for piece in told:
        word = piece.removeprefix(" ")
        assert word.isalpha() or (len(word) == 1 and word in "0123456789+-*/=.?:\n")  # words whole, digits single


def test_digits_join_to_the_number_that_was_meant() -> None:
    assert pieces("The answer is 42.\n") == ["The", " answer", " is", " 4", "2", ".", "\n"]
    assert extract_answer(TOKENIZER.decode(TOKENIZER.encode("4 - 2 = 2\nThe answer is 142.")), "answer_is") == "142"


def test_words_of_a_prompt_may_be_added() -> None:
    assert pieces("Right so far?") == ["Right", " so", " far", "?"]
    assert len(toy_tokenizer().encode("Right")) == 5
    assert toy_tokenizer().decode(toy_tokenizer().encode("Right so far?")) == "Right so far?"


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Ann has 12 apples.\n12 - 3 = 9\n  Zoë\tasks: why?"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert tokenizer_digest(loaded) == tokenizer_digest(TOKENIZER)


@pytest.mark.parametrize("name", ["pad", "bos", "eos"])
def test_special_tokens_are_single_and_hidden_in_text(name: str) -> None:
    token = getattr(TOKENIZER, f"{name}_token_id")
    assert TOKENIZER.encode(f"<{name}>") == [token]
    assert TOKENIZER.decode([*TOKENIZER.encode("7."), token], skip_special_tokens=True) == "7."

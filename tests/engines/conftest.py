"""What the tests of engines on a real model ask it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_dpo.models.loading import load_tokenizer

QUESTIONS = ("What is 2 + 3?", "Tom has 5 apples and eats 2. How many are left?", "Name the capital of France.")


@pytest.fixture(scope="module")
def prompts(smollm2: Path) -> list[tuple[int, ...]]:
    tokenizer = load_tokenizer(smollm2)
    return [
        tuple(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
            )
        )
        for question in QUESTIONS
    ]

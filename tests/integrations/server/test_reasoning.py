"""Chats get the thought of a solution as `reasoning_content`, whole and streamed; a plain completion keeps its text."""

from __future__ import annotations

from typing import Any

import pytest

from mcts_dpo.integrations.engine_thread import Solved
from mcts_dpo.integrations.server.responses import Answer
from mcts_dpo.integrations.stop_strings import before_stop
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.prompts import PromptSettings, thoughts_of
from mcts_dpo.solve.solution import Solution
from tests.models.test_phases import FAMILIES, Family, ids, settings_of, tokenizer_of

THINKING = [family for family in FAMILIES if family.solution[1]]


def answer_of(family: Family, *, chat: bool = True) -> tuple[Answer, Solved]:
    tokenizer = tokenizer_of(family)
    thoughts = thoughts_of(tokenizer, settings_of(family))
    text = decode(tokenizer, [token for part in family.solution for token in ids(tokenizer, part)])
    return Answer("m", chat, "f", thoughts=thoughts), Solved(0, Solution(text=text), text, 1)


@pytest.mark.parametrize("family", THINKING, ids=lambda family: family.name)
def test_the_thought_is_apart_from_the_answer(family: Family) -> None:
    answer, solved = answer_of(family)
    answer.ended(solved, "\n")
    (choice,) = answer.whole()["choices"]
    said = choice["message"]
    assert said["reasoning_content"].strip() == "So the answer is 12? Wait. \\boxed{7}"
    assert said["content"].split() == (family.solution[0] + "The answer is 5.").split()
    plain, solved = answer_of(family, chat=False)
    plain.ended(solved, "\n")
    assert plain.whole()["choices"][0]["text"] == solved.text


def streamed(chunks: list[dict[str, Any]], name: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(name, "") for chunk in chunks)


@pytest.mark.parametrize("family", THINKING[:3], ids=lambda family: family.name)
def test_a_stream_holds_the_same(family: Family) -> None:
    answer, solved = answer_of(family)
    steps = solved.text.splitlines(keepends=True)
    chunks = [chunk for count in range(1, len(steps)) for chunk in answer.decided(0, steps[:count], ("5",), "\n")]
    assert "Wait" in streamed(chunks, "reasoning_content")
    chunks += answer.ended(solved, "\n")
    said = answer.whole()["choices"][0]["message"]
    for name in ("reasoning_content", "content"):
        assert streamed(chunks, name) == said[name]


def test_a_policy_that_does_not_think_has_no_such_field() -> None:
    answer, solved = answer_of(FAMILIES[-1])
    answer.ended(solved, "\n")
    assert "reasoning_content" not in answer.whole()["choices"][0]["message"]


def test_a_stop_string_counts_after_the_thought() -> None:
    thoughts = thoughts_of(tokenizer_of(FAMILIES[0]), PromptSettings())
    text = "<think>\nA; b.\n</think>\n\nThe answer; is 5."
    assert before_stop(text, (";",), thoughts.answer_start(text)) == "<think>\nA; b.\n</think>\n\nThe answer"
    unclosed = "<think>\nA; b."
    assert before_stop(unclosed, (";",), thoughts.answer_start(unclosed)) == unclosed
    assert before_stop("A; b.", (";",), thoughts.answer_start("A; b.")) == "A"

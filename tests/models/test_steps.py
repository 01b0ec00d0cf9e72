"""Kinds of steps: every token is in one step, none is changed, and each kind ends where it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.prompts import PromptSettings, step_stops
from mcts_dpo.models.steps import StepSettings, first_step, split
from tests.models.test_prompts import byte_level, ids, metaspace

TEXT = (
    "<think>\nFirst, 3.5 + 4 = 7.5, e.g. so. Is it? Yes!\n\n1. Add.\n2. Wait, that is wrong.\n\nBut 3 + 4 = 7. "
    "Wait. Yes.</think>\n\nThe answer is 7."
)


def cut(text: str, **given: Any) -> list[str]:
    tokens = ids(byte_level(), text)
    ends = split(tokens, byte_level(), StepSettings(**given))
    assert ends[-1] == len(tokens)
    return [decode(byte_level(), tokens[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def test_paragraphs() -> None:
    assert cut(TEXT, kind="paragraphs") == [
        "<think>\nFirst, 3.5 + 4 = 7.5, e.g. so. Is it? Yes!\n\n",
        "1. Add.\n2. Wait, that is wrong.\n\n",
        "But 3 + 4 = 7. Wait. Yes.</think>\n\n",
        "The answer is 7.",
    ]


def test_sentences_and_lines() -> None:
    """Numbers, abbreviations and items of lists end no sentence; the mark that closes the thought ends a step."""
    assert cut(TEXT, kind="sentences") == [
        "<think>\n",
        "First, 3.5 + 4 = 7.5, e.g. so.",
        " Is it?",
        " Yes!\n\n",
        "1. Add.\n",
        "2. Wait, that is wrong.\n\n",
        "But 3 + 4 = 7.",
        " Wait.",
        " Yes.</think>\n\n",
        "The answer is 7.",
    ]


def test_markers_begin_a_step() -> None:
    found = cut(TEXT, kind="markers", markers=("Wait", "But"))
    assert "".join(found) == TEXT
    assert [step.strip() for step in found] == [
        "<think>\nFirst, 3.5 + 4 = 7.5, e.g. so. Is it? Yes!\n\n1. Add.\n2.",
        "Wait, that is wrong.",
        "But 3 + 4 = 7.",
        "Wait. Yes.</think>",
        "The answer is 7.",
    ]


def test_a_regular_expression_ends_a_step() -> None:
    found = cut(TEXT, kind="regex", pattern=r"= \d+(\.\d+)?")
    assert [re.search(r"= [\d.]+$", step) is not None for step in found[:2]] == [True, True]
    assert found[2:] == [". Wait. Yes.</think>\n\n", "The answer is 7."]


def test_short_steps_are_joined_and_long_ones_cut() -> None:
    tokens = ids(byte_level(), TEXT)
    settings = StepSettings(kind="sentences", min_tokens=8, max_tokens=12)
    ends = split(tokens, byte_level(), settings)
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert all(8 <= size <= 12 for size in sizes[:-1])
    assert sum(sizes) == len(tokens)
    whole = split(tokens, byte_level(), StepSettings(max_tokens=5))
    assert max(end - start for start, end in zip([0, *whole], whole, strict=False)) <= 5


def test_no_step_ends_inside_a_character() -> None:
    tokens = ids(byte_level(), "好好好好")
    assert len(tokens) == 12
    assert split(tokens, byte_level(), StepSettings(max_tokens=4)) == [3, 6, 9, 12]
    assert split(tokens, byte_level(), StepSettings(max_tokens=2)) == [2, 3, 5, 6, 8, 9, 11, 12]


KINDS = st.one_of(
    st.just({"kind": "text"}),
    st.just({"kind": "paragraphs"}),
    st.just({"kind": "sentences"}),
    st.just({"kind": "markers"}),
    st.just({"kind": "regex", "pattern": r"\d\."}),
)
PARTS = st.lists(
    st.sampled_from(["a", " Wait", "But", ".", ". ", "\n", "\n\n", "7.", "。", "</think>", " So", "!"]), max_size=14
)


@settings(max_examples=80)
@given(KINDS, st.integers(1, 4), st.one_of(st.none(), st.integers(4, 6)), PARTS, st.booleans())
def test_steps_hold_every_token_once(
    kind: dict[str, Any], least: int, most: int | None, parts: list[str], spaced: bool
) -> None:
    tokenizer = metaspace() if spaced else byte_level()
    rule = StepSettings(**kind, min_tokens=least, max_tokens=most)
    tokens = ids(tokenizer, "".join(parts))
    ends = split(tokens, tokenizer, rule)
    assert ends == sorted(set(ends))
    assert ends[-1:] == ([len(tokens)] if tokens else [])
    bounds = list(zip([0, *ends], ends, strict=False))
    assert all(end - start >= least for start, end in bounds[:-1])
    if most is not None:
        over = [tokens[start + most : end] for start, end in bounds]
        assert not any(decode(tokenizer, rest).strip() for rest in over)
    # A step that is drawn alone ends where the same tokens would be cut, as soon as its end is among them.
    alone = [first_step(tokens[:count], tokenizer, rule) for count in range(len(tokens) + 1)]
    for count, found in enumerate(alone):
        assert found is None or (0 < found <= count and found == split(tokens[:count], tokenizer, rule)[0])
    assert len(ends) < 2 or alone[-1] == ends[0]


def test_what_engines_stop_at() -> None:
    assert step_stops(PromptSettings(stop=("END",))) == (("\n", "END"), True)
    assert step_stops(PromptSettings(steps=StepSettings(kind="paragraphs"))) == (("\n\n",), True)
    assert step_stops(PromptSettings(steps=StepSettings(kind="regex", pattern="x"))) == ((), True)
    assert "\nWait" in step_stops(PromptSettings(steps=StepSettings(kind="markers")))[0]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("steps={kind: regex, pattern: 'x*'}", "pattern 'x*' matches the empty string"),
        ("steps={kind: regex, pattern: '\\b'}", "matches the empty string"),
        ("steps={kind: regex, pattern: '('}", "pattern '(' is no regular expression"),
        ("steps={kind: regex}", "accepted: one with kind regex only"),
        ("steps={pattern: x}", "pattern 'x' with kind text; accepted: one with kind regex only"),
        ("steps={kind: markers, markers: []}", "accepted: at least one word, none of them blank"),
        ("steps={min_tokens: 5, max_tokens: 4}", "max_tokens 4 is below min_tokens 5"),
        ("steps.kind=sentence", "did you mean 'sentences'?"),
    ],
)
def test_bad_settings_are_told_in_one_line(override: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(PromptSettings, None, [override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)

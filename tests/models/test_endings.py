"""Answers end exactly once, with the token that the chat template writes there, whatever the data brought along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from mcts_dpo.models.endings import Endings, endings
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.training.data.datasets import load_completions, load_preferences
from tests.training.world import tiny_policy

# w1 is the end of sequence; w30 ends a turn. In the second template a line end (w29) and w1 come behind it.
OTHER_END = (
    "{% for m in messages %}w2 {% if m.role == 'user' %}w3{% else %}w4{% endif %} {{ m.content }} w30 {% endfor %}"
    "{% if add_generation_prompt %}w2 w4 {% endif %}"
)
BOTH = OTHER_END.replace("{% if add_gen", "{% if not add_generation_prompt %}w1 {% endif %}{% if add_gen")
MANY = OTHER_END.replace("w30 {%", "w30 w5 {%")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    found = load_tokenizer(folder)
    found.add_special_tokens({"additional_special_tokens": [AddedToken("w30", single_word=True, special=True)]})
    return found


def completion(tokenizer: Any, path: Path, prompt: Any, said: Any, **options: Any) -> list[int]:
    path.write_text(json.dumps({"prompt": prompt, "completion": said}) + "\n")
    found: list[int] = load_completions(path, tokenizer, **options).tokens("completion_tokens")[0].tolist()
    return found


ASKED = [{"role": "user", "content": "w7"}]


@pytest.mark.parametrize("template", [OTHER_END, BOTH, MANY])
@pytest.mark.parametrize("said", ["w9 w8", "w9 w8 w1", "w9 w8 w30", "w9 w8 w30 w1", "w9 w8 w30 w30"])
@pytest.mark.parametrize("special", ["split", "allow"])
def test_a_template_that_ends_turns_with_another_token(
    tokenizer: Any, tmp_path: Path, template: str, said: str, special: Any
) -> None:
    tokenizer.chat_template = template
    for spoken in (said, [{"role": "assistant", "content": said}]):
        assert completion(tokenizer, tmp_path / "a.jsonl", ASKED, spoken, special_tokens=special) == [9, 8, 30]


@pytest.mark.parametrize(
    ("prompt", "said", "wanted"),
    [
        ("w7 ", "w9 w8", [9, 8, 1]),
        ("w7 ", "w9 w8 w1", [9, 8, 1]),
        ("w7 ", "w9 w8 w1 w1", [9, 8, 1]),
        ("w7 ", "w9 w8 w30", [9, 8, 30]),
        ("w2 w3 w7 w30 w2 w4 ", "w9 w8", [9, 8, 30]),  # a conversation that is text already
        ("w2 w3 w7 w30 w2 w4 ", "w9 w8 w30", [9, 8, 30]),
        ("w2 w3 w7 w30 w2 w4 ", "w9 w8 w30 w1", [9, 8, 30]),
        ("w2 w3 w7 w30 w2 w4 ", "w9 w8 w1", [9, 8, 1]),
    ],
)
def test_texts_that_end_or_do_not(tokenizer: Any, tmp_path: Path, prompt: str, said: str, wanted: list[int]) -> None:
    tokenizer.chat_template = OTHER_END
    assert completion(tokenizer, tmp_path / "a.jsonl", prompt, said) == wanted


def test_ends_of_other_families_count(folder: Path, tmp_path: Path) -> None:
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["</s>", "<|im_end|>"]})
    foreign = tokenizer.convert_tokens_to_ids("</s>")
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 </s>") == [9, foreign]
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 </s> w1") == [9, 1]


def test_single_steps_stay_as_they_are(tokenizer: Any, tmp_path: Path) -> None:
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 w8", append_eos=False) == [9, 8]
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 w1", append_eos=False) == [9, 1]


def test_every_turn_of_the_assistant_ends_once(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = MANY
    talk = [
        {"role": "assistant", "content": "w9"},
        {"role": "user", "content": "w10"},
        {"role": "assistant", "content": "w11 w1"},
    ]
    rows = {"prompt": ASKED, "chosen": talk, "rejected": [{"role": "assistant", "content": "w12"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(rows) + "\n")
    table = load_preferences(tmp_path / "a.jsonl", tokenizer)
    tokens, given_ = table.tokens("chosen_tokens")[0], table.environment_mask("chosen")[0]
    assert tokens.tolist() == [9, 30, 5, 2, 3, 10, 30, 5, 2, 4, 11, 30]
    assert tokens[~given_].tolist() == [9, 30, 11, 30]


def test_a_tokenizer_that_ends_every_text(folder: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = load_tokenizer(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A w1", special_tokens=[("w1", 1)])
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 w8") == [9, 8, 1]
    assert completion(tokenizer, tmp_path / "a.jsonl", "w7 ", "w9 w8 w1") == [9, 8, 1]


def test_what_is_known_of_a_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    assert endings(tokenizer).turn is None
    tokenizer.chat_template = OTHER_END
    assert (endings(tokenizer).sequence, endings(tokenizer).turn) == (1, 30)
    tokenizer.chat_template = "{{ messages[-1].content }} w9 "  # a word like any other
    assert endings(tokenizer).turn is None
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert endings(tokenizer).turn is None


@given(st.lists(st.sampled_from([1, 5, 7, 8, 30]), max_size=12))
def test_one_end_at_the_end_and_nothing_else_changed(answer: list[int]) -> None:
    ends = Endings(sequence=1, turn=30, blank=frozenset({5}))
    closed = ends.closed(answer, 30)
    assert closed[-1] in (1, 30)
    assert closed[:-1] == answer[: len(closed) - 1]
    before = [token for token in closed[:-1] if token != 5]
    assert not before or before[-1] not in (1, 30)
    assert ends.closed(closed, 30) == closed
    assert ends.closed(answer, None) == answer

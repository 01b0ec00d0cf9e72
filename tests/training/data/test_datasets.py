from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest
from mcts_dpo.training import TrainingSettings, train
from mcts_dpo.training.data.datasets import is_ours, load_completions, load_preferences, own_table
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

TEMPLATE = (
    "{% for m in messages %}w2 {% if m.role == 'user' %}w3{% else %}w4{% endif %} {{ m.content }} w1 w5 {% endfor %}"
    "{% if add_generation_prompt %}w2 w4 {% endif %}"
)
"""Turns of the tiny tokenizer: w2, who speaks, what, the end of sequence (w1), and a separator after it (w5)."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(policy: Path) -> Any:
    return load_tokenizer(policy)


@pytest.fixture(scope="module")
def chat(policy: Path) -> Any:
    tokenizer = load_tokenizer(policy)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_text_is_rendered_once_and_ends_where_the_answer_ends(tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        {"prompt": "w7 w8 ", "chosen": "w9 w10", "rejected": "w9 w11 w12", "weight": 2, "margin": 0.5},
        {"prompt": "w7 ", "chosen": "w9 w1", "rejected": "w8", "score_chosen": 4, "score_rejected": 1.5},
    ]
    table = load_preferences(jsonl(tmp_path / "data.jsonl", *rows), tokenizer)
    assert table.tokenizer == tokenizer_digest(tokenizer)
    assert [table.tokens("prompt_tokens")[row].tolist() for row in range(2)] == [[7, 8], [7]]
    assert [table.tokens("chosen_tokens")[row].tolist() for row in range(2)] == [[9, 10, 1], [9, 1]]
    assert [table.tokens("rejected_tokens")[row].tolist() for row in range(2)] == [[9, 11, 12, 1], [8, 1]]
    assert table.numbers("weight").tolist() == [2.0, 1.0]
    assert table.numbers("margin").tolist() == [0.5, 2.5]
    steps = load_preferences(tmp_path / "data.jsonl", tokenizer, append_eos=False)
    assert steps.tokens("rejected_tokens")[1].tolist() == [8]


def test_messages_go_through_the_chat_template_and_its_tail_is_not_learned(chat: Any, tmp_path: Path) -> None:
    explicit = {"prompt": [user("w7")], "chosen": [assistant("w9")], "rejected": [assistant("w10 w11")]}
    implicit = {"chosen": [user("w7"), assistant("w9")], "rejected": [user("w7"), assistant("w10 w11")]}
    as_text = {"prompt": [user("w7")], "chosen": "w9", "rejected": "w10 w11"}
    table = load_preferences(jsonl(tmp_path / "data.jsonl", explicit, implicit, as_text), chat)
    for row in range(3):
        assert table.tokens("prompt_tokens")[row].tolist() == [2, 3, 7, 1, 5, 2, 4]
        assert table.tokens("chosen_tokens")[row].tolist() == [9, 1]
        assert table.tokens("rejected_tokens")[row].tolist() == [10, 11, 1]


def tool(content: str) -> dict[str, str]:
    return {"role": "tool", "content": content}


def test_of_several_messages_only_the_assistants_are_learned(chat: Any, tmp_path: Path) -> None:
    """Its words and the end of each of its turns; not the user's, a tool's, a header or a separator."""
    talk = [assistant("w9 w10"), user("w11"), assistant("w12"), tool("w13 w14"), assistant("w15")]
    asked = [assistant("w9 w10"), user("w16")]  # the user has the last word
    rows = [{"prompt": [user("w7")], "chosen": talk, "rejected": asked}]
    table = load_preferences(jsonl(tmp_path / "data.jsonl", *rows), chat)
    assert table.tokens("prompt_tokens")[0].tolist() == [2, 3, 7, 1, 5, 2, 4]
    tokens, given = table.tokens("chosen_tokens")[0], table.environment_mask("chosen")[0]
    # Someone who is neither has the assistant's header in this template: what counts is the role, not the rendering.
    assert tokens.tolist() == [9, 10, 1, 5, 2, 3, 11, 1, 5, 2, 4, 12, 1, 5, 2, 4, 13, 14, 1, 5, 2, 4, 15, 1]
    assert tokens[~given].tolist() == [9, 10, 1, 12, 1, 15, 1]
    tokens, given = table.tokens("rejected_tokens")[0], table.environment_mask("rejected")[0]
    assert tokens.tolist() == [9, 10, 1, 5, 2, 3, 16, 1, 5]
    assert tokens[~given].tolist() == [9, 10, 1]
    single = load_preferences(tmp_path / "data.jsonl", chat, append_eos=False)
    assert single.tokens("chosen_tokens")[0].tolist()[-2:] == [1, 5]
    completions = load_completions(jsonl(tmp_path / "one.jsonl", {"prompt": [user("w7")], "completion": talk}), chat)
    assert completions.environment_mask("completion")[0].tolist() == table.environment_mask("chosen")[0].tolist()


def test_what_the_policy_wrote_must_be_told(chat: Any, tmp_path: Path) -> None:
    row = {"prompt": [user("w7")], "chosen": [user("w9"), tool("w8")], "rejected": [assistant("w9")]}
    with pytest.raises(InputError, match=r"line 1: chosen: no message of an assistant \(accepted: at least one\)"):
        load_preferences(jsonl(tmp_path / "data.jsonl", row), chat)
    # A template that drops what was thought in earlier turns.
    chat.chat_template = (
        "{% for m in messages %}w2 {% if loop.last %}w6 {% endif %}{{ m.content }} w1 {% endfor %}"
        "{% if add_generation_prompt %}w2 {% endif %}"
    )
    row = {"prompt": [user("w7")], "chosen": [assistant("w9"), user("w8"), assistant("w10")]}
    row |= {"rejected": [assistant("w9")]}
    with pytest.raises(InputError, match=r"line 1: chosen\[0\]: .*renders this message differently once others follow"):
        load_preferences(jsonl(tmp_path / "data.jsonl", row), chat)
    chat.chat_template = TEMPLATE


def test_a_template_without_an_end_of_sequence_gets_one_and_keeps_its_answer(chat: Any, tmp_path: Path) -> None:
    """The user's turn ends with the end of sequence, the answer does not: nothing of it may be cut."""
    chat.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}w3 {{ m.content }} w1 w4 {% else %}{{ m.content }} {% endif %}"
        "{% endfor %}"
    )
    row = {"prompt": [user("w7")], "chosen": [assistant("w9 w8")], "rejected": [assistant("w10")]}
    table = load_preferences(jsonl(tmp_path / "data.jsonl", row), chat)
    chat.chat_template = TEMPLATE
    assert table.tokens("prompt_tokens")[0].tolist() == [3, 7, 1, 4]
    assert table.tokens("chosen_tokens")[0].tolist() == [9, 8, 1]


def test_an_implicit_prompt_of_text(tokenizer: Any, tmp_path: Path) -> None:
    row = {"chosen": "w7 w8 w20", "rejected": "w7 w8 w30"}
    table = load_preferences(jsonl(tmp_path / "data.jsonl", row), tokenizer)
    assert table.tokens("prompt_tokens")[0].tolist() == [7, 8]
    assert table.tokens("chosen_tokens")[0].tolist() == [20, 1]


def test_parquet_and_hub_data_sets_are_the_same_rows(
    tokenizer: Any, chat: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"prompt": [user("w7")], "chosen": [assistant("w9")], "rejected": [assistant("w10 w11")]},
        {"prompt": [user("w8")], "chosen": [assistant("w9")], "rejected": [assistant("w11")]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    lines = load_preferences(jsonl(tmp_path / "data.jsonl", *rows), chat)
    table = load_preferences(tmp_path / "data.parquet", chat)
    # A folder of data files is a data set that `load_dataset` knows by its path.
    (tmp_path / "named").mkdir()
    Dataset.from_list(rows).to_json(tmp_path / "named" / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    hub = load_preferences("named", chat)
    for other in (table, hub):
        for name in ("prompt_tokens", "chosen_tokens", "rejected_tokens"):
            assert other.tokens(name).values.tolist() == lines.tokens(name).values.tolist()
    with pytest.raises(InputError, match=r"named: not a folder that `datasets` reads \(Unknown split"):
        load_preferences("named", chat, split="nowhere")


def test_lists_of_objects_and_saved_data_sets_are_the_same_rows(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "w7 ", "chosen": "w9", "rejected": "w8"}, {"prompt": "w7 ", "chosen": "w2", "rejected": "w3 w4"}]
    lines = load_preferences(jsonl(tmp_path / "data.jsonl", *rows), tokenizer)
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    jsonl(tmp_path / "lines.json", *rows)
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    DatasetDict(dev=Dataset.from_list(rows)).save_to_disk(tmp_path / "splits")
    for name, split in (("list.json", "train"), ("lines.json", "train"), ("saved", "train"), ("splits", "dev")):
        other = load_preferences(tmp_path / name, tokenizer, split=split)
        for column in ("prompt_tokens", "chosen_tokens", "rejected_tokens"):
            assert other.tokens(column).values.tolist() == lines.tokens(column).values.tolist()
    with pytest.raises(InputError, match=r"splits: .* \(Unknown split 'train'; it has dev\)"):
        load_preferences(tmp_path / "splits", tokenizer)
    (tmp_path / "list.json").write_text('[\n{"prompt": "w7 ",\n]')
    with pytest.raises(InputError, match=r"list\.json, line 3: not JSON"):
        load_preferences(tmp_path / "list.json", tokenizer)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match=r"list\.json, row 1: not an object of columns but 1"):
        load_preferences(tmp_path / "list.json", tokenizer)


def test_conversations_that_repeat_a_prompt_of_text(chat: Any, tmp_path: Path) -> None:
    """As in UltraFeedback: TRL, too, takes what the conversations begin with alike."""
    row = {"prompt": "w7", "chosen": [user("w7"), assistant("w9")], "rejected": [user("w7"), assistant("w10 w11")]}
    table = load_preferences(jsonl(tmp_path / "data.jsonl", row), chat)
    assert table.tokens("prompt_tokens")[0].tolist() == [2, 3, 7, 1, 5, 2, 4]
    assert table.tokens("chosen_tokens")[0].tolist() == [9, 1]
    apart = {"prompt": "w7", "chosen": [assistant("w9")], "rejected": [assistant("w10")]}
    with pytest.raises(
        InputError, match="line 1: prompt: is text, and the others are conversations; chosen and rejected do not"
    ):
        load_preferences(jsonl(tmp_path / "data.jsonl", apart), chat)


def test_tools_and_their_calls_reach_the_chat_template(chat: Any, tmp_path: Path) -> None:
    chat.chat_template = (
        "{% if tools %}w20 {{ tools[0].name }} {{ 'w22 ' if 'unit' in tools[0] }}{% endif %}"
        "{% if formal %}w23 {% endif %}"
        "{% for m in messages %}{% if m.tool_calls %}w21 {{ m.tool_calls[0].name }} w1 "
        "{% else %}{{ m.content }} {% if m.role == 'assistant' %}w1 {% endif %}{% endif %}{% endfor %}"
    )
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "w12"}]}
    row = {"prompt": [user("w7")], "chosen": [call, tool("w13"), assistant("w14")], "rejected": [assistant("w9")]}
    given = {"chat_template_kwargs": {"formal": True}, "tools": [{"name": "w8", "unit": None}]}
    rows = [row, row | given, row | given | {"tools": json.dumps(given["tools"])}]
    table = load_preferences(jsonl(tmp_path / "data.jsonl", *rows), chat)
    prompt, chosen = table.tokens("prompt_tokens"), table.tokens("chosen_tokens")
    assert [prompt[place].tolist() for place in range(3)] == [[7], [20, 8, 23, 7], [20, 8, 23, 7]]
    assert chosen[1].tolist() == [21, 12, 1, 13, 14, 1]
    assert chosen[1][~table.environment_mask("chosen")[1]].tolist() == [21, 12, 1, 14, 1]
    for field, value in (("tools", "{"), ("tools", 3), ("chat_template_kwargs", [1])):
        with pytest.raises(InputError, match=rf"line 1: {field}: .* \(accepted: a"):
            load_preferences(jsonl(tmp_path / "data.jsonl", row | {field: value}), chat)
    chat.chat_template = TEMPLATE


def test_completions_to_imitate(tokenizer: Any, tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "data.jsonl",
        {"prompt": "w7 ", "completion": "w9"},
        {"prompt": "w8 ", "chosen": "w9 w9", "rejected": "w3"},
    )
    table = load_completions(file, tokenizer)
    assert [table.tokens("completion_tokens")[row].tolist() for row in range(2)] == [[9, 1], [9, 9, 1]]
    with pytest.raises(InputError, match=r"line 1: weight: 0 \(accepted: a finite number above 0\)"):
        load_completions(jsonl(file, {"prompt": "w7 ", "completion": "w9", "weight": 0}), tokenizer)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], r"line 2: not an object of columns but \[1\]"),
        ({"prompt": "w7", "rejected": "w8"}, "line 2: chosen: is missing .*found fields: prompt, rejected"),
        ({"prompt": "w7", "chosen": "", "rejected": "w8"}, "line 2: chosen: is empty"),
        ({"prompt": "w7 ", "chosen": "w8", "rejected": "w8"}, r"line 2: rejected: equals chosen \('w8'\)"),
        ({"prompt": "w7", "chosen": 8, "rejected": "w8"}, "line 2: chosen: 8 .accepted: text or a list of messages"),
        ({"prompt": 7, "chosen": "w9", "rejected": "w8"}, "line 2: prompt: 7 "),
        ({"prompt": "w7 ", "chosen": " ", "rejected": "w8"}, "line 2: chosen: renders to no token after the prompt"),
        ({"chosen": "w9", "rejected": "x"}, "line 2: prompt: is missing; chosen and rejected do not begin alike"),
        ({"prompt": "w7 ", "chosen": "w9", "rejected": "w8", "weight": -1}, "line 2: weight: -1 .accepted: a finite"),
        ({"prompt": "w7 ", "chosen": "w9", "rejected": "w8", "margin": "big"}, "line 2: margin: 'big' .*a number"),
        ({"prompt": "w7", "chosen": [assistant("a")], "rejected": "b"}, "rejected: is of another kind than chosen"),
        ({"prompt": [user("w7")], "chosen": [{"role": "x"}], "rejected": []}, r"chosen\[0\].content: is missing"),
        ({"prompt": ["w7"], "chosen": "a", "rejected": "b"}, r"prompt\[0\]: 'w7' .*role and content"),
        ({"prompt": [user("w7")], "chosen": "a", "rejected": "b"}, "messages, but the policy has no chat template"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(
    tokenizer: Any, tmp_path: Path, row: Any, message: str
) -> None:
    good = {"prompt": "w7 ", "chosen": "w9", "rejected": "w8"}
    with pytest.raises(InputError, match=message) as refused:
        load_preferences(jsonl(tmp_path / "data.jsonl", good, row), tokenizer, append_eos=False)
    assert str(refused.value).startswith(str(tmp_path / "data.jsonl"))
    assert "\n" not in str(refused.value)


def test_training_on_such_data_equals_training_on_the_same_pairs(policy: Path, tmp_path: Path) -> None:
    rows = random_rows(12)
    digest = digest_of(policy)
    pairs = pairs_of([([*prompt, *prefix], [], [*a, 1], [*b, 1]) for prompt, prefix, a, b in rows], digest)

    def text(ids: list[int]) -> str:
        return "".join(f"w{token} " for token in ids)

    file = jsonl(
        tmp_path / "data.jsonl",
        *(
            {"prompt": text([*prompt, *prefix]), "chosen": text(a), "rejected": text(b)}
            for prompt, prefix, a, b in rows
        ),
    )
    settings = TrainingSettings(optimiser={"lr": 1e-3}, data={"batch_size": 4, "epochs": 2})
    ours = train(policy, pairs, tmp_path / "ours", settings)
    theirs = train(policy, file, tmp_path / "theirs", settings)
    assert ours == theirs
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "theirs")]
    assert weights[0] == weights[1]
    # Without a reference in the loss, the start is measured: such data does not tell it.
    simpo = train(policy, file, tmp_path / "simpo", changed(settings, {"objective": "simpo"}))
    assert simpo.first["chosen_displacement"] == 0.0
    assert simpo.reference_tokens > 0
    with pytest.raises(InputError, match="'kto' learns from lists of siblings"):
        train(policy, file, tmp_path / "kto", changed(settings, {"objective": "kto"}))


def test_our_own_tables_are_told_apart(policy: Path, tmp_path: Path) -> None:
    pairs_of(random_rows(2), digest_of(policy)).save(tmp_path / "ours.parquet")
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "theirs.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    assert is_ours(tmp_path / "ours.parquet")
    assert not any(is_ours(tmp_path / name) for name in ("theirs.parquet", "broken.parquet", "absent.parquet"))
    # Of a folder of ours, the table that the objective learns from, and never its text.
    (tmp_path / "data").mkdir()
    (tmp_path / "ours.parquet").rename(tmp_path / "data" / "pairs.parquet")
    assert own_table(tmp_path / "data", "ipo") == tmp_path / "data" / "pairs.parquet"
    assert own_table(tmp_path / "data", "rft") is None
    with pytest.raises(
        InputError, match=r"data: holds token ids \(prompt_tokens\), which its text would not give back"
    ):
        load_preferences(tmp_path / "data", load_tokenizer(policy))

"""Tool calls, tool answers and tools that a chat template does not write are told, and never silently dropped."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.training.data.datasets import load_completions
from tests.training.world import tiny_policy

DEAF = (
    "{% for m in messages %}{% if m.role != 'tool' %}w2 {{ m.content or '' }} w1 {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}w2 {% endif %}"
)
FIRST_ONLY = (
    "{% for m in messages %}w2 {% if m.tool_calls %}w6 {{ m.tool_calls[0].name }} {% endif %}"
    "{{ m.content or '' }} w1 {% endfor %}"
)
READS = (
    "{% for m in messages %}w2 {% for c in m.tool_calls or [] %}w6 {{ c.name }} {% endfor %}{{ m.content or '' }} w1 "
    "{% endfor %}{% if add_generation_prompt %}w2 {% endif %}"
)
ASKED = [{"role": "user", "content": "w7"}]


def calling(*names: str, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": [{"name": name} for name in names]}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return load_tokenizer(tiny_policy(tmp_path / "tiny"))


def load(tokenizer: Any, path: Path, **row: Any) -> Any:
    path.write_text(json.dumps({"prompt": ASKED} | row) + "\n")
    return load_completions(path, tokenizer)


def test_calls_that_are_left_out(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = DEAF
    answer = {"role": "assistant", "content": "w9"}
    for said in ([calling("w8")], [calling("w8", content="w10")], [calling("w8"), answer]):
        with pytest.raises(InputError, match=r"line 1: completion: message 1, tool call 0: .* leaves it out \(.*w8"):
            load(tokenizer, tmp_path / "a.jsonl", completion=said)
    with pytest.raises(InputError, match=r"message 1, tool call 0: the policy's chat template leaves it out"):
        load(tokenizer, tmp_path / "a.jsonl", prompt=[*ASKED, calling("w8")], completion=[answer])
    with pytest.raises(InputError, match=r"message 1, of a tool: the policy's chat template leaves it out \('w11'\)"):
        load(tokenizer, tmp_path / "a.jsonl", completion=[{"role": "tool", "content": "w11"}, answer])


def test_the_second_of_two_calls(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = FIRST_ONLY
    with pytest.raises(InputError, match=r"completion: message 1, tool call 1: .* leaves it out \(.*w10"):
        load(tokenizer, tmp_path / "a.jsonl", completion=[calling("w8", "w10")])


def test_calls_that_are_written(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = READS
    talk = [calling("w8", "w8"), {"role": "tool", "content": "w11"}, {"role": "assistant", "content": "w9"}]
    table = load(tokenizer, tmp_path / "a.jsonl", completion=talk)
    assert table.tokens("completion_tokens")[0].tolist() == [6, 8, 6, 8, 1, 2, 11, 1, 2, 9, 1]


def test_tools_that_are_left_out_are_counted(tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.chat_template = READS
    with caplog.at_level(logging.WARNING):
        load(tokenizer, tmp_path / "a.jsonl", completion="w9", tools=[{"name": "w8"}])
    assert f"{tmp_path / 'a.jsonl'}: the policy's chat template leaves out the tools of 1 rows" in caplog.text
    caplog.clear()
    tokenizer.chat_template = "{% for t in tools or [] %}{{ t.name }} {% endfor %}" + READS
    with caplog.at_level(logging.WARNING):
        load(tokenizer, tmp_path / "a.jsonl", completion="w9", tools=[{"name": "w8"}])
        load(tokenizer, tmp_path / "a.jsonl", completion="w9", tools=None)
    assert not caplog.records

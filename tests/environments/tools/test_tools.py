"""Tools: calls that work, calls that do not, and what the policy is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.environments import Turn, environment_of, instructed
from mcts_dpo.environments.tools import ToolsSettings, tool
from mcts_dpo.environments.tools.lookup import LookupSettings
from mcts_dpo.environments.tools.tool import Tool, ToolSettings, register_tool
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens
from mcts_dpo.search import SearchSettings
from tests.models.test_prompts import CHATML, byte_level

PROBLEM = Problem("1", "How much?", "84")


def reply(step: str, **given: Any) -> str | None:
    settings = load_settings(SearchSettings, {"environment": {"kind": "tools"} | given}).environment
    environment = environment_of(settings)
    assert environment is not None
    found = environment.reply(PROBLEM, [Turn(step)])
    return None if found is None else found.text


def call(name: str, arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_a_call_is_answered_and_a_text_is_not() -> None:
    assert reply("I multiply. " + call("calculator", {"expression": "12 * 7"})) == "84"
    assert reply("12 * 7 = 84") is None
    assert reply(call("calculator", {"expression": "1/3"}) + "\n" + call("calculator", {"expression": "2^3"})) == (
        "1/3 = 0.333333333333…\n8"
    )
    assert reply('[calculator "12"]', opening="[", closing="]") == (
        "error: the call is no JSON (Expecting value: line 1 column 1 (char 0))"
    )


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("<tool_call>calculator(3)</tool_call>", "error: the call is no JSON ("),
        ("<tool_call>[1]</tool_call>", 'error: a call is {"name": NAME, "arguments": {…}}'),
        (call("calculater", {}), "error: no tool 'calculater'; did you mean 'calculator'? (there are: calculator)"),
        (call("calculator", {}), "error: calculator: 'expression' is a required property"),
        (call("calculator", {"expression": 3}), "error: calculator: expression: 3 is not of type 'string'"),
        (call("calculator", [3]), "error: calculator: [3] is not of type 'object'"),
        (call("calculator", {"expression": "1/0"}), "error: calculator: division by zero"),
        ('<tool_call>{"name": "calculator"', "error: the call is no JSON ("),
        (f"<tool_call>{'[' * 100_000}", "error: the call is no JSON ("),
    ],
)
def test_a_bad_call_gets_a_line_that_says_why(step: str, told: str) -> None:
    found = reply(step)
    assert found is not None
    assert found.startswith(told)
    assert "\n" not in found


@given(st.text(max_size=60), st.sampled_from(["<tool_call>", "</tool_call>", '{"name": "calculator", "arguments": {']))
def test_no_step_makes_it_fail(text: str, part: str) -> None:
    for step in (text, part + text, text + part, f"<tool_call>{text}</tool_call>"):
        found = reply(step)
        assert found is None or isinstance(found, str)


def test_a_call_continues_to_its_end() -> None:
    environment = environment_of(ToolsSettings())
    assert environment is not None
    assert environment.stops == ("</tool_call>",)
    assert environment.unfinished('Now <tool_call>{"name":\n')
    assert not environment.unfinished(call("calculator", {}))
    assert not environment.unfinished("no call")


def test_the_policy_is_told_about_the_tools() -> None:
    shown = "{{ tool['function']['name'] }}: {{ tool['function']['description'] }}\n"
    template = "{% if tools %}{% for tool in tools %}" + shown + "{% endfor %}{% endif %}"
    tokenizer = byte_level(template + CHATML)

    def told(settings: ToolsSettings) -> str:
        return decode(tokenizer, prompt_tokens(PROBLEM, tokenizer, instructed(PromptSettings(), settings)))

    assert told(ToolsSettings()).startswith("calculator: The exact value of an expression of numbers.\n")
    as_text = told(ToolsSettings(described="text", instruction="Use tools."))
    assert 'How much?\n\nUse tools.\n\nTools:\n{"name": "calculator"' in as_text
    assert 'Call one with <tool_call>{"name": NAME, "arguments": {...}}</tool_call>' in as_text
    assert "calculator" not in told(ToolsSettings(described="none"))


def test_lookup_finds_the_passage(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    text = tmp_path / "facts.txt"
    text.write_text("A dozen is twelve.\n\nA score is twenty.\n\nA gross is a dozen dozens.\n")
    lines = tmp_path / "facts.jsonl"
    lines.write_text('{"text": "A dozen is twelve."}\n\n{"text": "A score is twenty.", "id": 3}\n')
    for corpus in (text, lines):
        tools: list[Any] = ["calculator", {"kind": "lookup", "corpus": str(corpus)}]
        assert reply(call("lookup", {"query": "what is a score"}), tools=tools) == "A score is twenty."
        assert reply(call("lookup", {"query": "zebra"}), tools=tools) == "nothing found"
    assert reply(call("lookup", {"query": "dozen"}), tools=[{"kind": "lookup", "corpus": str(text), "top": 2}]) == (
        "A dozen is twelve.\n\nA gross is a dozen dozens."
    )
    assert ToolsSettings(tools=(LookupSettings(corpus=text),)).files() == [text]


@pytest.mark.parametrize(
    ("name", "contents", "told"),
    [
        ("none.txt", None, "not a file"),
        ("empty.txt", "\n\n", "no passage"),
        ("bad.jsonl", '{"text": "a"}\n{"text":', "line 2: not JSON"),
        ("field.jsonl", '{"passage": "a"}', "line 1: no field 'text'"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_named(tmp_path: Path, name: str, contents: str | None, told: str) -> None:
    pytest.importorskip("bm25s")
    path = tmp_path / name
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(InputError, match=f"{name}: .*{told}"):
        environment_of(ToolsSettings(tools=(LookupSettings(corpus=path),)))


def test_a_tool_from_outside_is_one_short_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_KINDS", dict(tool._KINDS))

    class EchoSettings(ToolSettings):
        """Says it again."""

        kind: Literal["echo"] = "echo"

    schema = {"type": "object", "properties": {"word": {"enum": ["a", "b"]}}, "additionalProperties": False}
    register_tool(EchoSettings, lambda settings: Tool("echo", "Says it.", schema, lambda given: given.get("word", "?")))
    assert reply(call("echo", {"word": "a"}), tools=["echo"]) == "a"
    assert reply(call("echo", {"word": "c"}), tools=["echo"]) == "error: echo: word: 'c' is not one of ['a', 'b']"
    with pytest.raises(ValueError, match="'echo' is registered already"):
        register_tool(EchoSettings, lambda settings: Tool("echo", "", {}, str))


def test_settings_that_make_no_sense_are_refused() -> None:
    for tools, told in (([], r"\(none\)"), (["calculator", "calculator"], "each once"), (["calculater"], "calculator")):
        with pytest.raises(InputError, match=told):
            load_settings(SearchSettings, {"environment": {"kind": "tools", "tools": tools}})

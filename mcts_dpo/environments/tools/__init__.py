"""Tools: functions that the policy calls by name with JSON arguments. What they return is the reply.

A call stands between two marks: `<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 7"}}</tool_call>`,
as the chat templates of Qwen and Hermes have it. Several calls in one step get one reply, a line each. A call that
cannot be read, of an unknown tool, or with arguments that do not fit its schema gets a line that begins with "error:",
so that the policy can learn from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from mcts_dpo.common.settings import nearest
from mcts_dpo.data import Problem
from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Role, Turn
from mcts_dpo.environments.registry import register_environment
from mcts_dpo.environments.tools.calculator import CalculatorSettings
from mcts_dpo.environments.tools.tool import Tool, ToolEntry, schema_error, tool_kind


class ToolsSettings(EnvironmentSettings):
    """The policy calls tools.

    tools:     the tools, by kind, each once.
    opening, closing: the marks around a call.
    role:      where a reply stands (see `Reply`).
    described: how the policy is told about the tools. "template": by the chat template, in its own form. "text": their
               JSON schemas follow the question. "none": not at all.
    """

    kind: Literal["tools"] = "tools"
    tools: tuple[ToolEntry, ...] = (CalculatorSettings(),)
    opening: str = Field(default="<tool_call>", min_length=1)
    closing: str = Field(default="</tool_call>", min_length=1)
    role: Role = "tool"
    described: Literal["template", "text", "none"] = "template"

    @field_validator("tools")
    @classmethod
    def _one_of_a_kind(cls, tools: tuple[ToolEntry, ...]) -> tuple[ToolEntry, ...]:
        kinds = [tool.kind for tool in tools]
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"has the kinds {', '.join(kinds) or '(none)'}; accepted: one or more, each once")
        return tools

    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The JSON schemas of the tools for the chat template."""
        return tuple(_made(entry).schema for entry in self.tools) if self.described == "template" else ()

    def told(self) -> str:
        """What follows the question."""
        if self.described != "text":
            return self.instruction
        lines = "\n".join(json.dumps(_made(entry).schema["function"]) for entry in self.tools)
        call = f'{self.opening}{{"name": NAME, "arguments": {{...}}}}{self.closing}'
        return f"{self.instruction}\n\n".lstrip() + f"Tools:\n{lines}\nCall one with {call}"

    def files(self) -> list[Path]:
        """The files of the tools."""
        return [file for entry in self.tools for file in entry.files()]


def _made(entry: Any) -> Tool:
    made: Tool = tool_kind(entry.kind).make(entry)
    return made


def _make(settings: ToolsSettings) -> Environment:
    tools = {tool.name: tool for tool in map(_made, settings.tools)}
    calls = re.compile(f"{re.escape(settings.opening)}(.*?)(?:{re.escape(settings.closing)}|$)", re.DOTALL)

    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        found = calls.findall(path[-1].step)
        return Reply("\n".join(called(call, tools) for call in found), role=settings.role) if found else None

    def unfinished(step: str) -> bool:
        return step.rfind(settings.opening) > step.rfind(settings.closing)

    return Environment(settings, reply, stops=(settings.closing,), unfinished=unfinished)


def called(call: str, tools: Mapping[str, Tool]) -> str:
    """What one call returns; "error: …" where it cannot be made.

    call: {"name": …, "arguments": {…}}. tools: by name.
    """
    try:
        asked = json.loads(call)
    except (ValueError, RecursionError) as error:
        return f"error: the call is no JSON ({error})"
    if not isinstance(asked, dict) or not isinstance(asked.get("name"), str):
        return 'error: a call is {"name": NAME, "arguments": {…}}'
    tool = tools.get(asked["name"])
    if tool is None:
        close = nearest(asked["name"], tuple(tools))
        hint = f"; did you mean {close!r}?" if close else ""
        return f"error: no tool {asked['name']!r}{hint} (there are: {', '.join(tools)})"
    arguments = asked.get("arguments", {})
    wrong = schema_error(arguments, tool.parameters)
    if wrong:
        return f"error: {tool.name}: {wrong}"
    try:
        return tool.call(arguments)
    except Exception as error:  # whatever a tool raises is a reply that the policy reads
        return f"error: {tool.name}: {' '.join(str(error).split()) or type(error).__name__}"


register_environment(ToolsSettings, _make)

"""A check that a chat template writes the tool calls and tool answers of a conversation.

In: a conversation and a function that renders one. Out: nothing, or InputError naming what is left out: a policy would
learn to say nothing where the data calls a tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.training.data.fields import short

Messages = list[dict[str, Any]]


def require_tool_calls(where: str, messages: Messages, render: Callable[[Messages], str]) -> None:
    """Raise InputError if the rendering of a conversation is the same without one of its tool calls or tool answers.

    where: the row and field, for the message. render: the template; it may raise InputError.
    """
    parts = list(_without_each(messages))
    if not parts:
        return
    whole = render(messages)
    for what, value, others in parts:
        if _same(render, others, whole):
            raise InputError(f"{where}: {what}: the policy's chat template leaves it out ({short(value)})")


def _same(render: Callable[[Messages], str], messages: Messages, whole: str) -> bool:
    try:
        return render(messages) == whole
    except InputError:  # a template that misses it has read it
        return False


def _without_each(messages: Messages) -> Iterator[tuple[str, Any, Messages]]:
    """For each tool call and tool answer: what it is, its value, and the conversation without it."""
    for index, message in enumerate(messages):
        before, after = messages[:index], messages[index + 1 :]
        if message.get("role") == "tool":
            yield f"message {index}, of a tool", message.get("content"), [*before, *after]
        given = message.get("tool_calls")
        calls = given if isinstance(given, list) else []
        for number, call in enumerate(calls):
            left = calls[:number] + calls[number + 1 :]
            fewer = {name: value for name, value in message.items() if name != "tool_calls"}
            fewer = fewer | ({"tool_calls": left} if left else {"content": message.get("content") or ""})
            yield f"message {index}, tool call {number}", call, [*before, fewer, *after]

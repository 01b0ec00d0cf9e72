"""A row of TRL-style data by its fields: text, conversations, numbers, what a chat template is given.

In: a row's values. Out: each field checked, or InputError with row and field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mcts_dpo.common.errors import InputError

Text = str | list[dict[str, Any]]
"""A text, or a conversation: messages with `role` and `content` (or `tool_calls`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set: its values by field, and its location ("file, line 3"), for messages."""

    values: Mapping[str, Any]
    where: str

    def text(self, field: str) -> Text:
        """A field that must hold text or messages, and not be empty."""
        value = self.value(field)
        if value is None:
            known = ", ".join(sorted(self.values)) or "none"
            raise InputError(f"{self.where}: {field}: is missing (accepted: text or messages; found fields: {known})")
        if isinstance(value, str):
            if not value:
                raise InputError(f"{self.where}: {field}: is empty (accepted: text or messages)")
            return value
        if not isinstance(value, Sequence) or not value:
            raise InputError(f"{self.where}: {field}: {short(value)} (accepted: text or a list of messages)")
        for index, message in enumerate(value):
            if not isinstance(message, Mapping):
                accepted = "accepted: an object with role and content"
                raise InputError(f"{self.where}: {field}[{index}]: {short(message)} ({accepted})")
            for key in ("role", "content"):
                if key == "content" and message.get(key) is None and message.get("tool_calls"):
                    continue
                if not isinstance(message.get(key), str):
                    found = short(message[key]) if key in message else "is missing"
                    raise InputError(f"{self.where}: {field}[{index}].{key}: {found} (accepted: text)")
        messages: list[dict[str, Any]] = _without_nulls(value)
        return messages

    def for_template(self) -> dict[str, Any]:
        """What the chat template gets besides messages: `tools` (a list, or JSON of one) and `chat_template_kwargs`."""
        tools, others = self.values.get("tools"), self.values.get("chat_template_kwargs")
        if isinstance(tools, str):
            with suppress(ValueError):
                tools = json.loads(tools)
        if not (tools is None or isinstance(tools, list)):
            raise InputError(f"{self.where}: tools: {short(tools)} (accepted: a list of tools, or JSON of one)")
        if not (others is None or isinstance(others, Mapping)):
            raise InputError(f"{self.where}: chat_template_kwargs: {short(others)} (accepted: an object)")
        given = {"tools": tools or None, **(others or {})}
        return {name: _without_nulls(value) for name, value in given.items() if value is not None}

    def number(self, field: str, default: float) -> float:
        """An optional field that must hold a finite number. NaN counts as missing, as in tables."""
        value = self.value(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise InputError(f"{self.where}: {field}: {short(value)} (accepted: a number)")
        return float(value)

    def value(self, field: str) -> Any:
        """A field's value; None also for NaN."""
        value = self.values.get(field)
        return None if isinstance(value, float) and value != value else value


def _without_nulls(value: Any) -> Any:
    """Objects without the fields that are null: a columnar file has each field in every row."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def short(value: Any) -> str:
    """A value for a message: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

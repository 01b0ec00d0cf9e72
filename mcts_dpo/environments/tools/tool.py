"""The interface of a tool, and the tools by name: those of this folder, and those that a module registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

import jsonschema
from pydantic import SerializeAsAny

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.common.settings import Settings

_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN = tuple(sorted({one.name for one in iter_modules([str(Path(__file__).parent)])} - {"tool"}))
"""The kinds of this folder. Each is imported when it is first asked for."""


class ToolSettings(Settings):
    """What every tool has. A tool's own settings are a subclass in its file, where `kind` has a default.

    kind: the tool's name.
    """

    kind: str

    def files(self) -> list[Path]:
        """Files that the tool reads."""
        return []


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the policy calls.

    description: for the policy. parameters: a JSON schema of an object, whose properties are the arguments.
    call: arguments that fit the schema → what the policy reads. It may raise; the error is then the reply.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[Mapping[str, Any]], str]

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as chat templates are told about it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolKind:
    """One registered kind: the class of its settings, and what makes it."""

    settings: type[ToolSettings]
    make: Callable[[Any], Tool]


_KINDS: dict[str, ToolKind] = {}


def register_tool(settings: type[ToolSettings], make: Callable[[Any], Tool]) -> None:
    """Add a kind of tool, so that `search.environment.tools` accepts it.

    Args:
        settings: the class of its settings; the default of its `kind` is the name.
        make: settings → the tool.

    Raises:
        ValueError: the name is taken, or `kind` has no default.
    """
    if settings.model_fields["kind"].is_required():
        raise ValueError(f"{settings.__name__}.kind: needs a default, the tool's name, such as 'calculator'")
    name = str(settings.model_fields["kind"].default)
    if name in _KINDS or (name in BUILT_IN and settings.__module__ != f"{_PACKAGE}.{name}"):
        raise ValueError(f"the tool {name!r} is registered already")
    _KINDS[name] = ToolKind(settings, make)


def tool_names() -> tuple[str, ...]:
    """The names of all kinds, those of this folder first."""
    return (*BUILT_IN, *(name for name in _KINDS if name not in BUILT_IN))


def tool_kind(name: str) -> ToolKind:
    """The kind of this name, one of `tool_names`."""
    if name not in _KINDS:
        import_module(f"{_PACKAGE}.{name}")
    return _KINDS[name]


ToolEntry = Annotated[SerializeAsAny[ToolSettings], Kinds(tool_names, lambda name: tool_kind(name).settings)]
"""A tool as settings hold it: `{kind: NAME, …}`, or NAME alone."""


def schema_error(arguments: Any, parameters: Mapping[str, Any]) -> str:
    """What is wrong with arguments by a JSON schema, one line; "" if they fit."""
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(parameters).iter_errors(arguments))
    if error is None:
        return ""
    place = ".".join(map(str, error.absolute_path))
    return " ".join(f"{place}: {error.message}".split()).removeprefix(": ")[:200]

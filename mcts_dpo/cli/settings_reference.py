"""Makes the reference of all settings from the classes that declare them: `mcts-dpo settings > docs/configuration.md`.

In: the settings classes, their fields and docstrings. Out: Markdown. The meaning of a field comes from the docstring of
its class: a line that begins with "name: meaning", and the indented lines after it. Several names may share a colon. A
field without a meaning is an error, so that every setting is documented.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Collection
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mcts_dpo.common.accepted import accepted_by
from mcts_dpo.common.kinds import Kinds
from mcts_dpo.common.settings import Settings
from mcts_dpo.pipeline.config import RunConfig, StageConfig

_HEAD = """# Configuration

Every setting of a run, by section. A file holds them as YAML (`search: {children: 4}`), a command takes them as dotted
names (`search.children=4`, later ones win), Python as arguments of the class. What is not given has the default below.
`mcts-dpo settings` printed this page from the classes themselves.
"""


def configuration() -> str:
    """The whole page."""
    shown: dict[type[BaseModel], str] = {}
    own = {name: _group(field.annotation) for name, field in StageConfig.model_fields.items()}
    parts: list[str] = []
    for name, group in own.items():
        parts += _section(group, f"{name}.", shown)
    parts = [_HEAD, *_section(RunConfig, "", shown, skip=set(own)), *parts]
    return "\n".join(parts) + "\n"


def meanings(cls: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a settings class and of those it extends say of each field, on one line.

    A class's own docstring wins. Fields that none of them names are absent.
    """
    found: dict[str, str] = {}
    for one in cls.__mro__:
        if issubclass(one, Settings) and one is not Settings:
            found = _meanings(one) | found
    return found


_ENTRY = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*):\s", re.MULTILINE)


def _meanings(cls: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        _, *entries = _ENTRY.split(paragraph)
        for names, meaning in zip(entries[::2], entries[1::2], strict=True):
            for name in names.split(", "):
                found.setdefault(name, " ".join(meaning.split()))
    return {name: meaning for name, meaning in found.items() if name in cls.model_fields}


def summary(cls: type[BaseModel]) -> str:
    """The first paragraph of the docstring, on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def _section(
    cls: type[BaseModel], prefix: str, shown: dict[type[BaseModel], str], skip: Collection[str] = ()
) -> list[str]:
    """The table of a class and those of its groups. shown: the section of each class so far; each is described once."""
    said = meanings(cls)
    shown[cls] = prefix.rstrip(".")
    title = f"`{prefix.rstrip('.')}`" if prefix else "The run"
    lines = [f"## {title}", "", summary(cls), "", "| setting | default | accepted | meaning |", "|---|---|---|---|"]
    groups: list[tuple[str, type[BaseModel]]] = []
    inner: list[tuple[str, Kinds, bool]] = []
    for name, field in cls.model_fields.items():
        if name in skip:
            continue
        listed = [one for item in get_args(field.annotation)[:1] for one in get_args(item)[1:]]
        kinds = next((one for one in (*field.metadata, *listed) if isinstance(one, Kinds)), None)
        if kinds is not None:
            inner.append((f"{prefix}{name}", kinds, bool(listed)))
        group = None if kinds is not None else _group(field.annotation)
        whole = group is not None and field.annotation is group
        if name not in said and not whole:
            raise ValueError(f"{cls.__name__}.{name}: its docstring does not say what it means")
        if group is not None:
            groups.append((f"{prefix}{name}.", group))
        meaning = said.get(name) or (summary(group) if group else "")
        below = "a kind below, or a mapping of `kind` and its settings"
        below = f"a list, each item {below}" if listed else below
        accepted = "see below" if whole else accepted_by(field.annotation, field.metadata)
        accepted = accepted if kinds is None else below
        lines.append(f"| `{prefix}{name}` | {_default(field, whole)} | {_cell(accepted)} | {_cell(meaning)} |")
    lines.append("")
    for place, family, several in inner:
        lines += _kinds_section(family, place, shown, several)
    for place, group in groups:
        if group in shown:
            lines += [f"## `{place.rstrip('.')}`", "", f"The settings of `{shown[group]}`.", ""]
        else:
            lines += _section(group, place, shown)
    return lines


def _kinds_section(kinds: Kinds, place: str, shown: dict[type[BaseModel], str], several: bool) -> list[str]:
    """One table for all kinds of a group: a setting has a row for each default or meaning that it has.

    several: the group is a list, whose entries dotted names reach by their kind.
    """
    classes = {name: kinds.class_of(name) for name in kinds.names()}
    # Only the kinds that need no `--with`, whatever has been imported.
    ours = {name: one for name, one in classes.items() if one.__module__.startswith("mcts_dpo.")}
    classes = {name: one for name, one in ours.items() if not one.__module__.startswith("mcts_dpo.toy.")}
    first = next(iter(classes.values()))
    if first in shown:
        return [f"## `{place}`", "", f"The settings of `{shown[first]}`.", ""]
    shown[first] = place
    rows: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for kind, cls in classes.items():
        said = meanings(cls)
        for name, field in cls.model_fields.items():
            if name == "kind":
                continue
            whole = field.annotation is _group(field.annotation)
            accepted = f"the settings of `{name}`" if whole else _cell(accepted_by(field.annotation, field.metadata))
            cells = (_default(field, whole), accepted, _cell(said[name]))
            rows.setdefault(name, {}).setdefault(cells, []).append(kind)
    lines = [
        f"## `{place}`",
        "",
        f"{'Entries' if several else 'One'} of these kinds, each with the settings below that name it.",
    ]
    lines += ["", "| kind | what it is |", "|---|---|"]
    lines += [f"| `{kind}` | {_cell(summary(cls))} |" for kind, cls in classes.items()]
    lines += ["", "| setting | kinds | default | accepted | meaning |", "|---|---|---|---|---|"]
    entry = f"{place}.KIND" if several else place
    for name, found in rows.items():
        for (default, accepted, meaning), having in found.items():
            listed = ", ".join(f"`{kind}`" for kind in having)
            lines.append(f"| `{entry}.{name}` | {listed} | {default} | {accepted} | {meaning} |")
    return [*lines, ""]


def _group(annotation: Any) -> Any:
    """The settings class in an annotation, alone or in a union with null; None without one."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((kind for kind in members if isinstance(kind, type) and issubclass(kind, Settings)), None)


def _default(field: Any, whole: bool) -> str:
    if whole:
        return ""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Settings):
        value = getattr(value, "kind", value)
    if isinstance(value, tuple):
        value = [getattr(one, "kind", one) for one in value]
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, Path):
        value = str(value)
    return f"`{_cell(json.dumps(value, ensure_ascii=False, default=str))}`"


def _cell(text: str) -> str:
    """Text with the characters escaped that end a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")

"""Says what a settings field accepts, and finds the field that an error is about.

In: type annotations of settings classes. Out: words for people, such as "an integer ≥ 1".
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from mcts_dpo.common.kinds import Kinds


def accepted_by(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation accepts, in words: "an integer ≥ 1", "'a', 'b' or null"."""
    kinds = next((one for one in metadata if isinstance(one, Kinds)), None)
    if kinds is not None:
        return f"{either([shown(name) for name in kinds.names()])}, or a mapping with this `kind` and its settings"
    if get_origin(annotation) is Annotated:
        own = [bound for one in get_args(annotation)[1:] for bound in getattr(one, "metadata", [one])]
        return accepted_by(get_args(annotation)[0], [*own, *metadata])
    said = next((one for one in metadata if isinstance(one, str)), None)
    if said is not None:
        return said
    members = alternatives(annotation)
    if len(members) > 1:
        # The bounds of a union hold for its numbers and texts, not for null.
        words = [accepted_by(member, metadata) for member in members if member is not type(None)]
        return either([*words, *(["null"] if type(None) in members else [])])
    if get_origin(annotation) is Literal:
        return either([shown(choice) for choice in get_args(annotation)])
    if annotation in {int, float}:
        return ("an integer" if annotation is int else "a number") + _bounds(metadata)
    simple = {bool: "true or false", str: "text", Path: "a path", type(None): "null", Any: "anything"}
    if isinstance(annotation, type) and annotation is str and any(getattr(m, "min_length", None) for m in metadata):
        return "text, not empty"
    patterns = [one.pattern for one in metadata if getattr(one, "pattern", None)]
    if annotation is str and patterns:
        return f"text that matches {patterns[0]}"
    if annotation in simple:
        return simple[annotation]
    if get_origin(annotation) is tuple:
        arguments = get_args(annotation)
        if arguments[-1] is ...:
            return f"a list, each item {accepted_by(arguments[0])}"
        return f"a list of {len(arguments)}: {', '.join(accepted_by(argument) for argument in arguments)}"
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return f"a mapping of {accepted_by(key)} to {accepted_by(value)}"
    if is_settings(annotation):
        return f"the settings {', '.join(annotation.model_fields)}"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: Sequence[Any]) -> str:
    bounds = []
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("multiple_of", "a multiple of")):
        limits = [getattr(one, attribute) for one in metadata if getattr(one, attribute, None) is not None]
        bounds += [f"{sign} {limit}" for limit in limits]
    return " " + " and ".join(bounds) if bounds else ""


def either(words: Sequence[str]) -> str:
    """Join words to "a, b or c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def shown(value: Any) -> str:
    """A given value as an error message shows it: text in quotes, everything else as JSON, at most 80 characters."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def is_settings(kind: Any) -> bool:
    """Whether a type is a group of settings."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union (`Annotated` kept around each), or the annotation alone."""
    if get_origin(annotation) in {Union, types.UnionType}:
        return [kind for member in get_args(annotation) for kind in alternatives(member)]
    return [annotation]


class Place:
    """A place in settings: its dotted path, the annotation there, and the groups that hold it."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.path: tuple[str, ...] = ()
        self.annotation: Any = cls
        self.metadata: Sequence[Any] = ()
        self.groups: list[type[BaseModel]] = []
        self.default: Any = None

    def accepted(self) -> str:
        """What is accepted here, in words."""
        return accepted_by(self.annotation, self.metadata)

    def kinds(self) -> Kinds | None:
        """What chooses the settings class here, if anything does."""
        inner = [one for kind in alternatives(self.annotation) for one in get_args(kind)[1:]]
        return next((one for one in (*self.metadata, *inner) if isinstance(one, Kinds)), None)

    def lists_kinds(self) -> bool:
        """Whether it is a list of things with a kind."""
        items = [get_args(kind)[0] for kind in alternatives(self.annotation) if get_origin(kind) is tuple]
        return any(isinstance(one, Kinds) for item in items for one in get_args(item)[1:])

    def choices(self) -> list[str]:
        """The texts among the choices here, if it has choices."""
        literals = [kind for kind in alternatives(self.annotation) if get_origin(kind) is Literal]
        return [choice for kind in literals for choice in get_args(kind) if isinstance(choice, str)]


def locate(cls: type[BaseModel], location: tuple[int | str, ...], data: Any) -> Place:
    """Follow pydantic's location through the annotations, without the names that it gives to members of unions.

    data: the given values, which tell the kind of a group that has several kinds.
    """
    place = Place(cls)
    for depth, part in enumerate(location):
        kinds = [
            get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in alternatives(place.annotation)
        ]
        groups = [kind for kind in kinds if is_settings(kind)]
        chosen = place.kinds()
        own = chosen.of(data) if chosen is not None else None
        groups = groups if own is None else [own]
        known = next((kind.model_fields[part] for kind in groups if part in kind.model_fields), None)
        if known is not None:
            place.annotation, place.metadata, place.default = known.annotation, known.metadata, known.default
        elif isinstance(part, int) and any(get_origin(kind) is tuple for kind in kinds):
            members = next(get_args(kind) for kind in kinds if get_origin(kind) is tuple)
            place.annotation = members[0] if members[-1] is ... else members[min(part, len(members) - 1)]
            place.metadata = ()
        elif any(get_origin(kind) is dict for kind in kinds):
            wrong_key = location[depth + 1 :][:1] == ("[key]",)
            place.annotation = next(get_args(kind)[0 if wrong_key else 1] for kind in kinds if get_origin(kind) is dict)
            place.metadata = ()
        elif depth < len(location) - 1 or not groups:
            continue
        place.groups = groups
        place.path = (*place.path, str(part))
        data = inside_of(data, part)
    return place


def inside_of(data: Any, part: int | str) -> Any:
    """The given value at one key or index of a group; None if there is none."""
    if isinstance(data, BaseModel):
        return getattr(data, str(part), None)
    if isinstance(data, Mapping):
        return data.get(part)
    inside = isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int) and part < len(data)
    return data[part] if inside and isinstance(part, int) else None

"""The base of all settings: YAML and dotted overrides in, checked frozen values out.

Each package declares its settings next to the code that uses them, as a subclass of `Settings`: fields with types,
ranges and defaults. A group is a field whose type is itself a `Settings`. This module reads settings (`load_settings`),
writes them (`dump_settings`) and compares them (`difference`). An error in a file or an override becomes one line that
says how to fix it.
"""

from __future__ import annotations

import copy
import difflib
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_encodable
from mcts_dpo.common.yaml_dialect import Dumper, Loader


class Settings(BaseModel):
    """Strict, frozen, no unknown keys. Sequences are tuples (lists are accepted on the way in).

    Only types that YAML lacks are converted: a list to a tuple, an integer to a float, a string to a `Path`. "4" is not
    4, and 1 is not true.

    moved: former names of fields, with their present place ("lr": "optimiser.lr").
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", ser_json_inf_nan="constants")
    moved: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _say_it_in_yaml(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        old = [name for name in data if isinstance(name, str) and name in cls.moved]
        if old:
            places = {name: cls.moved[name] for name in old}
            told = "; ".join(f"{name} is now {place}" for name, place in places.items())
            raise PydanticCustomError("moved", "{told}", {"told": told, "places": places})
        converted = {}
        for name, value in data.items():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            kinds = _alternatives(field.annotation) if field else []
            if isinstance(value, str) and Path in kinds and str not in kinds:
                value = Path(value)
            converted[name] = _tuples(value)
        return converted


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True, slots=True)
class Kinds:
    """Marks a field whose settings class depends on its `kind`: `{kind: NAME, …}`, or NAME alone.

    Use it as `Annotated[SerializeAsAny[Base], Kinds(...)]`, where every kind's class is a subclass of `Base` and has a
    field `kind` whose default is the kind's name.

    names:    returns the names of all kinds.
    class_of: returns the settings class of a kind that is among the names.
    default:  the kind of a mapping that names none; "": each must name one.
    """

    names: Callable[[], Sequence[str]]
    class_of: Callable[[str], type[Settings]]
    default: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: the kind's own class reads the value before the field's annotation sees it."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def of(self, value: Any) -> type[Settings] | None:
        """The settings class that reads `value`; None if its kind is unknown."""
        if isinstance(value, Settings):
            return type(value)
        kind = value.get("kind", self.default) if isinstance(value, Mapping) else value
        return self.class_of(kind) if isinstance(kind, str) and kind in self.names() else None

    def _read(self, value: Any) -> Any:
        if not isinstance(value, str | Mapping):
            return value
        found = self.of(value)
        if found is None:
            kind, location = (value, ()) if isinstance(value, str) else (value.get("kind"), ("kind",))
            unknown = PydanticCustomError("unknown_kind", "no such kind", {"kinds": list(self.names())})
            raise ValidationError.from_exception_data(
                "kind", [InitErrorDetails(type=unknown, loc=location, input=kind)]
            )
        return found.model_validate({"kind": value} if isinstance(value, str) else value)


def changed(settings: SettingsT, changes: Mapping[str, Any]) -> SettingsT:
    """A checked copy of `settings` with other values at dotted paths: `changed(config, {"search.children": 8})`."""
    values = dict(settings)
    for path, value in changes.items():
        name, _, inner = path.partition(".")
        values[name] = changed(values[name], {inner: value}) if inner else value
    return type(settings).model_validate(values)


def load_settings(
    cls: type[SettingsT], source: Path | str | Mapping[str, Any] | None, overrides: Sequence[str] = (), name: str = ""
) -> SettingsT:
    """Settings of class `cls` from a YAML file or a mapping, then `overrides` in order.

    source:    None gives all defaults.
    overrides: "dotted.path=value" each, the value in YAML: "search.children=4", "training.optimiser.lr=1e-6",
               "problems.limit=null", "prompt.stop=['\\n\\n']". In a list of things with a `kind`, the kind
               names the entry, which is added if it is missing: "search.rewards.self_evaluation.weight=0.5".
    name:      what errors call settings that come from no file; else the name of the class.

    Raises InputError, one line, naming the file or override, the full dotted path, the value and what is accepted. For
    an unknown name it gives the nearest spelling, for malformed YAML the line. Of several errors, the first is shown
    and the others are counted.
    """
    data: dict[Any, Any]
    if source is None:
        where, data = name or cls.__name__, {}
    elif isinstance(source, Mapping):
        where, data = name or cls.__name__, copy.deepcopy(dict(source))
    else:
        where, data = str(source), read_yaml(Path(source))
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        origins[_override(cls, data, override)] = f"override {override!r}"
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise InputError(_one_line(cls, data, error, where, origins)) from None


def dump_settings(settings: Settings) -> str:
    """All settings, with defaults, as YAML in the order of declaration. `load_settings` reads them back equal."""
    return as_yaml(settings.model_dump(mode="json"))


def as_yaml(data: Mapping[str, Any]) -> str:
    """A mapping of settings as YAML in its own order; `read_yaml` reads it back equal."""
    return yaml.dump(dict(data), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, indent=2)


def difference(a: Settings, b: Settings) -> list[str]:
    """The differences from `a` to `b`: lines such as "search.children: 4 -> 8", in order of declaration."""
    left, right = dict(_leaves(a.model_dump(mode="json"))), dict(_leaves(b.model_dump(mode="json")))
    lines = []
    opened = {path[:depth] for side in (left, right) for path in side for depth in range(len(path))}
    for path in [*left, *(path for path in right if path not in left)]:
        if path in opened:
            continue  # null or empty on one side and a group on the other: the members of the group are listed
        old = _show(left[path]) if path in left else "absent"
        new = _show(right[path]) if path in right else "absent"
        if old != new:
            lines.append(f"{'.'.join(path)}: {old} -> {new}")
    return lines


def nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that is most similar to `name`, or None if none is similar."""
    folded = {candidate.casefold(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, data


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


# --- YAML -------------------------------------------------------------------------------------------


def _parse(text: str, where: str) -> Any:
    # Not yaml.safe_load, which reads scalars as version 1.1 does.
    try:
        data = yaml.load(text, Loader=Loader)
        require_encodable(data, where)
        return data
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{where}: nested too deep (accepted: some hundred levels)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where}: not YAML ({str(error).splitlines()[0]})") from None


def read_yaml(path: Path) -> dict[Any, Any]:
    """A YAML file's mapping, unchecked ({} for an empty file). Raises InputError naming the file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; accepted: a YAML file of settings") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    data = _parse(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: {_show(data)} is not a group of settings (accepted: lines of 'name: value')")
    return data


def _override(cls: type[Settings], data: dict[Any, Any], override: str) -> tuple[str, ...]:
    """Put one "a.b=c" into `data`; return its path."""
    name, equals, text = override.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise InputError(f"override {override!r}: accepted: NAME=VALUE, for instance search.children=4")
    value = _parse(text, f"override {override!r}")
    group: Any = data
    keys: list[str | int] = []
    added: int | None = None
    for depth, part in enumerate(path[:-1], start=1):
        key: str | int = part
        if isinstance(group, list):
            entries = len(group)
            key = _entry(group, part)
            added = depth if len(group) > entries else None
        keys.append(key)
        place = _locate(cls, tuple(keys), data)
        if isinstance(group, dict) and group.get(key) is None:
            group[key] = list(place.default or ()) if place.lists_kinds() else {}
        if place.lists_kinds() and isinstance(group[key], list | tuple):
            group[key] = list(group[key])
        elif isinstance(group[key], Settings):
            group[key] = group[key].model_dump()
        elif isinstance(group[key], str) and place.kinds() is not None:
            group[key] = {"kind": group[key]}
        if not isinstance(group[key], dict | list) or (isinstance(group[key], list) and not place.lists_kinds()):
            raise InputError(
                f"override {override!r}: '{'.'.join(path[:depth])}' is {_show(group[key])}, not a group of settings"
            )
        group = group[key]
    last: str | int = path[-1]
    if isinstance(group, list):
        last = _entry(group, path[-1])
        value = {"kind": path[-1], **value} if isinstance(value, Mapping) else value
    group[last] = value
    return tuple(map(str, [*keys, last][:added]))  # what is missing of an added entry is the override's fault, too


def _entry(entries: list[Any], kind: str) -> int:
    """The index of the entry of this kind; it is added if there is none."""
    kinds = [
        entry if isinstance(entry, str) else _inside(entry, "kind") if isinstance(entry, Mapping | Settings) else None
        for entry in entries
    ]
    if kind not in kinds:
        entries.append({"kind": kind})
        return len(entries) - 1
    return kinds.index(kind)


# --- what was wrong, in one line ----------------------------------------------------------------------

_NOT_A = {
    "int": "is not an integer",
    "float": "is not a number",
    "bool": "is not true or false",
    "string": "is not text",
    "tuple": "is not a list",
    "dict": "is not a mapping",
    "model": "is not a group of settings",
    "literal": "is not one of the choices",
    "finite": "is not finite",
    "path": "is not a path",
    "is": "is not a path",
}
_OUT_OF_RANGE = {"greater", "less", "too", "multiple", "string_pattern", "string_too"}


def _one_line(
    cls: type[Settings], data: Any, error: ValidationError, where: str, origins: Mapping[tuple[str, ...], str]
) -> str:
    # Unknown names come first: a misspelt name of a required setting is both unknown and missing.
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    by_path: dict[tuple[str, ...], list[tuple[ErrorDetails, _Place]]] = {}
    for one in found:
        place = _locate(cls, one["loc"], data)
        by_path.setdefault(place.path, []).append((one, place))
    path, same = next(iter(by_path.items()))
    for given, origin in origins.items():
        if path[: len(given)] == given or (len(path) < len(given) and given[: len(path)] == path):
            where = origin
    name = f"{'.'.join(path)}: " if path and same[0][0]["type"] != "moved" else ""
    more = f" (and {len(by_path) - 1} more)" if len(by_path) > 1 else ""
    return f"{where}: {name}{_complaint(cls, path, same)}{more}"


def _complaint(cls: type[Settings], path: tuple[str, ...], same: list[tuple[ErrorDetails, _Place]]) -> str:
    first, place = same[0]
    kind = first["type"]
    accepted = place.accepted()
    if kind == "moved":
        prefix = "".join(f"{part}." for part in path)
        return "; ".join(f"{prefix}{old} is now {prefix}{new}" for old, new in first["ctx"]["places"].items())
    if kind in {"extra_forbidden", "invalid_key"}:
        names = [name for group in place.groups for name in group.model_fields]
        close = nearest(path[-1], names)
        elsewhere = [known for known in _all_names(cls) if known.rpartition(".")[2] == path[-1]]
        if close:
            return f"unknown setting; did you mean {close!r}?"
        if elsewhere:
            return f"unknown setting; did you mean {elsewhere[0]!r}?"
        return f"unknown setting (accepted: {', '.join(names) or 'none'})"
    if kind == "missing":
        return f"missing (accepted: {accepted})"
    given = _show(first["input"])
    if kind == "unknown_kind":
        kinds = first["ctx"]["kinds"]
        close = nearest(first["input"], kinds) if isinstance(first["input"], str) else None
        hint = f"; did you mean {close!r}?" if close else ""
        return f"{given} is not one of the choices{hint} (accepted: {_or([_show(one) for one in kinds])})"
    if kind in {"value_error", "assertion_error"}:
        # The message of a validator in the settings class.
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        return message if isinstance(first["input"], Mapping) else f"{given} {message}"
    if first["loc"][-1:] == ("[key]",):
        close = nearest(path[-1], place.choices())
        return "unknown name" + (f"; did you mean {close!r}?" if close else f" (accepted: {accepted})")
    if kind == "literal_error" and isinstance(first["input"], str):
        close = nearest(first["input"], place.choices())
        if close:
            return f"{given} is not one of the choices; did you mean {close!r}? (accepted: {accepted})"
    if len({one["type"] for one, _ in same}) > 1:
        reason = "is not accepted"
    elif any(kind.startswith(prefix) for prefix in _OUT_OF_RANGE):
        reason = "is out of range"
    else:
        reason = _NOT_A.get(kind.partition("_")[0], "is not accepted")
    return f"{given} {reason} (accepted: {accepted})"


def _all_names(cls: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield prefix + name
        for kind in _alternatives(field.annotation):
            if _is_settings(kind):
                yield from _all_names(kind, f"{prefix}{name}.")


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union (`Annotated` kept around each), or the annotation alone."""
    if get_origin(annotation) in {Union, types.UnionType}:
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


class _Place:
    """Where an error is: its dotted path, the annotation there, and the groups that hold it."""

    def __init__(self, cls: type[Settings]) -> None:
        self.path: tuple[str, ...] = ()
        self.annotation: Any = cls
        self.metadata: Sequence[Any] = ()
        self.groups: list[type[Settings]] = []
        self.default: Any = None

    def accepted(self) -> str:
        return accepted_by(self.annotation, self.metadata)

    def kinds(self) -> Kinds | None:
        """What chooses the settings class here, if anything does."""
        inner = [one for kind in _alternatives(self.annotation) for one in get_args(kind)[1:]]
        return next((one for one in (*self.metadata, *inner) if isinstance(one, Kinds)), None)

    def lists_kinds(self) -> bool:
        """Whether it is a list of things with a kind."""
        items = [get_args(kind)[0] for kind in _alternatives(self.annotation) if get_origin(kind) is tuple]
        return any(isinstance(one, Kinds) for item in items for one in get_args(item)[1:])

    def choices(self) -> list[str]:
        literals = [kind for kind in _alternatives(self.annotation) if get_origin(kind) is Literal]
        return [choice for kind in literals for choice in get_args(kind) if isinstance(choice, str)]


def _locate(cls: type[Settings], location: tuple[int | str, ...], data: Any) -> _Place:
    """Follow pydantic's location through the annotations, without the names that it gives to members of unions.

    data: the given values, which tell the kind of a group that has several kinds.
    """
    place = _Place(cls)
    for depth, part in enumerate(location):
        kinds = [
            get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in _alternatives(place.annotation)
        ]
        groups = [kind for kind in kinds if _is_settings(kind)]
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
        data = _inside(data, part)
    return place


def _inside(data: Any, part: int | str) -> Any:
    if isinstance(data, Settings):
        return getattr(data, str(part), None)
    if isinstance(data, Mapping):
        return data.get(part)
    inside = isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int) and part < len(data)
    return data[part] if inside and isinstance(part, int) else None


def accepted_by(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation accepts, in words: "an integer ≥ 1", "'a', 'b' or null"."""
    kinds = next((one for one in metadata if isinstance(one, Kinds)), None)
    if kinds is not None:
        return f"{_or([_show(name) for name in kinds.names()])}, or a mapping with this `kind` and its settings"
    if get_origin(annotation) is Annotated:
        own = [bound for one in get_args(annotation)[1:] for bound in getattr(one, "metadata", [one])]
        return accepted_by(get_args(annotation)[0], [*own, *metadata])
    said = next((one for one in metadata if isinstance(one, str)), None)
    if said is not None:
        return said
    members = _alternatives(annotation)
    if len(members) > 1:
        # The bounds of a union hold for its numbers and texts, not for null.
        words = [accepted_by(member, metadata) for member in members if member is not type(None)]
        return _or([*words, *(["null"] if type(None) in members else [])])
    if get_origin(annotation) is Literal:
        return _or([_show(choice) for choice in get_args(annotation)])
    if annotation in {int, float}:
        return ("an integer" if annotation is int else "a number") + _bounds(metadata)
    simple = {bool: "true or false", str: "text", Path: "a path", type(None): "null", Any: "anything"}
    if isinstance(annotation, type) and annotation is str and any(getattr(m, "min_length", None) for m in metadata):
        return "text, not empty"
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
    if _is_settings(annotation):
        return f"the settings {', '.join(annotation.model_fields)}"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: Sequence[Any]) -> str:
    bounds = []
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("multiple_of", "a multiple of")):
        limits = [getattr(one, attribute) for one in metadata if getattr(one, attribute, None) is not None]
        bounds += [f"{sign} {limit}" for limit in limits]
    return " " + " and ".join(bounds) if bounds else ""


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."

"""The base of all settings: YAML and dotted overrides in, checked frozen values out.

Each package declares its settings next to the code that uses them, as a subclass of `Settings`: fields with types,
ranges and defaults. A group is a field whose type is itself a `Settings`. This module reads settings (`load_settings`),
writes them (`dump_settings`) and compares them (`difference`). An error in a file or an override becomes one line that
says how to fix it.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mcts_dpo.common.accepted import Place, alternatives, either, inside_of, is_settings, locate, shown
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
    def _convert(cls, data: Any) -> Any:
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
            kinds = alternatives(field.annotation) if field else []
            if isinstance(value, str) and Path in kinds and str not in kinds:
                value = Path(value)
            converted[name] = _tuples(value)
        return converted


SettingsT = TypeVar("SettingsT", bound=Settings)


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
        old = shown(left[path]) if path in left else "absent"
        new = shown(right[path]) if path in right else "absent"
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
        raise InputError(f"{path}: {shown(data)} is not a group of settings (accepted: lines of 'name: value')")
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
        place = locate(cls, tuple(keys), data)
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
                f"override {override!r}: '{'.'.join(path[:depth])}' is {shown(group[key])}, not a group of settings"
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
        entry if isinstance(entry, str) else inside_of(entry, "kind") if isinstance(entry, Mapping | Settings) else None
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
_OUT_OF_RANGE = {"greater", "less", "too", "multiple", "string_too"}


def _one_line(
    cls: type[Settings], data: Any, error: ValidationError, where: str, origins: Mapping[tuple[str, ...], str]
) -> str:
    # Unknown names come first: a misspelt name of a required setting is both unknown and missing.
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    by_path: dict[tuple[str, ...], list[tuple[ErrorDetails, Place]]] = {}
    for one in found:
        place = locate(cls, one["loc"], data)
        by_path.setdefault(place.path, []).append((one, place))
    path, same = next(iter(by_path.items()))
    name = f"{'.'.join(path)}: " if path and same[0][0]["type"] != "moved" else ""
    complaint = _complaint(cls, path, same)
    more = f" (and {len(by_path) - 1} more)" if len(by_path) > 1 else ""
    return f"{_origin(path, complaint, origins) or where}: {name}{complaint}{more}"


def _origin(path: tuple[str, ...], complaint: str, origins: Mapping[tuple[str, ...], str]) -> str | None:
    """The override that caused an error at `path`, if one did: of several in a group, the last that is named in it."""
    above = [given for given in origins if path[: len(given)] == given]
    below = [given for given in origins if len(path) < len(given) and given[: len(path)] == path]
    named = [given for given in below if ".".join(given[len(path) :]) in complaint]
    found = [*below, *named, *above]
    return origins[found[-1]] if found else None


def _complaint(cls: type[Settings], path: tuple[str, ...], same: list[tuple[ErrorDetails, Place]]) -> str:
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
    given = shown(first["input"])
    if kind == "unknown_kind":
        kinds = first["ctx"]["kinds"]
        close = nearest(first["input"], kinds) if isinstance(first["input"], str) else None
        hint = f"; did you mean {close!r}?" if close else ""
        return f"{given} is not one of the choices{hint} (accepted: {either([shown(one) for one in kinds])})"
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
    if len({one["type"] for one, _ in same}) > 1 or kind.startswith("string_pattern"):
        reason = "is not accepted"
    elif any(kind.startswith(prefix) for prefix in _OUT_OF_RANGE):
        reason = "is out of range"
    else:
        reason = _NOT_A.get(kind.partition("_")[0], "is not accepted")
    return f"{given} {reason} (accepted: {accepted})"


def _all_names(cls: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield prefix + name
        for kind in alternatives(field.annotation):
            if is_settings(kind):
                yield from _all_names(kind, f"{prefix}{name}.")

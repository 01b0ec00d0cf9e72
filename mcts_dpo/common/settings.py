"""The base of every room's settings: YAML and dotted overrides in, checked frozen values out.

A room declares its settings beside the code that they set, as a subclass of `Settings` (fields with
types, ranges and defaults; groups are fields that are themselves `Settings`). This module reads them
(`load_settings`), writes them (`dump_settings`), compares them (`difference`), and turns whatever is
wrong with a file or an override into one line that its writer can act on. It knows no stage.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import require_encodable


class Settings(BaseModel):
    """Strict, frozen, no unknown keys. Sequences are tuples (lists are accepted on the way in).

    Nothing is converted but what YAML cannot say: a list becomes a tuple, an integer serves as a
    float, a string serves as a `Path`. "4" is not 4, and 1 is not true.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @model_validator(mode="before")
    @classmethod
    def _say_it_in_yaml(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        converted = {}
        for name, value in data.items():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            kinds = _alternatives(field.annotation) if field else []
            if isinstance(value, str) and Path in kinds and str not in kinds:
                value = Path(value)
            converted[name] = _tuples(value)
        return converted


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    cls: type[SettingsT], source: Path | str | Mapping[str, Any] | None, overrides: Sequence[str] = (), name: str = ""
) -> SettingsT:
    """Settings of class `cls` from a YAML file (or a mapping; None: all defaults), then `overrides` in order.

    An override is "dotted.path=value", the value being YAML: "search.children=4", "training.lr=1e-6",
    "problems.limit=null", "prompt.stop=['\\n\\n']". name: what errors call settings that come from no file (else the
    class's name).

    Raises InputError, one line, naming the file or override, the full dotted path, the value and what is
    accepted; the nearest spelling for an unknown name; the line for malformed YAML. Of several errors the
    first is told and the others are counted.
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
        origins[_override(data, override)] = f"override {override!r}"
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise InputError(_one_line(cls, error, where, origins)) from None


def dump_settings(settings: Settings) -> str:
    """All settings, defaults included, as YAML in the order of declaration; `load_settings` reads it back equal."""
    return yaml.dump(
        settings.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, indent=2
    )


def difference(a: Settings, b: Settings) -> list[str]:
    """What differs from `a` to `b`: lines such as "search.children: 4 -> 8", in order of declaration."""
    left, right = dict(_leaves(a.model_dump(mode="json"))), dict(_leaves(b.model_dump(mode="json")))
    lines = []
    opened = {path[:depth] for side in (left, right) for path in side for depth in range(len(path))}
    for path in [*left, *(path for path in right if path not in left)]:
        if path in opened:
            continue  # null or empty on one side, a group on the other: its members tell
        old = _show(left[path]) if path in left else "absent"
        new = _show(right[path]) if path in right else "absent"
        if old != new:
            lines.append(f"{'.'.join(path)}: {old} -> {new}")
    return lines


def nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that `name` was most likely meant to be, or None when none is near."""
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

_INT = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|[0-9][0-9_]*)$")
_WHOLE = re.compile(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: 1e-6 is a number, 1:30 and 2024-01-01 are text, and so are yes and no.

    (Version 1.1, PyYAML's own, reads "1e-6" as text, "1:30" as 90, "010" as 8 and the setting "yes" as true.)
    """

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way to say it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key_node.value!r} is set twice", problem_mark=key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    if _WHOLE.match(text):
        mantissa, exponent = re.split("[eE]", text)
        return int(mantissa) * int(10 ** int(exponent))
    return int(text, 16 if "x" in text else 10)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would take for something other than text; long text as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    visible = data.replace("\n", "").isprintable()
    # PyYAML writes control characters and exotic line ends as they are unless it is told to escape.
    style = '"' if not visible else "|" if "\n" in data.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_representer(str, _text)


def _parse(text: str, where: str) -> Any:
    # A Loader of its own: yaml.safe_load would bring the scalars of version 1.1 back.
    try:
        data = yaml.load(text, Loader=_Loader)
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


def _override(data: dict[Any, Any], override: str) -> tuple[str, ...]:
    """Put one "a.b=c" into `data`; return its path."""
    name, equals, text = override.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise InputError(f"override {override!r}: accepted: NAME=VALUE, for instance search.children=4")
    value = _parse(text, f"override {override!r}")
    group = data
    for depth, part in enumerate(path[:-1], start=1):
        if isinstance(group.get(part), Settings):
            group[part] = group[part].model_dump()
        if group.get(part) is None:
            group[part] = {}
        if not isinstance(group[part], dict):
            raise InputError(
                f"override {override!r}: '{'.'.join(path[:depth])}' is {_show(group[part])}, not a group of settings"
            )
        group = group[part]
    group[path[-1]] = value
    return path


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


def _one_line(cls: type[Settings], error: ValidationError, where: str, origins: Mapping[tuple[str, ...], str]) -> str:
    # Unknown names first: a misspelt name of a required setting is both unknown and missing.
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    by_path: dict[tuple[str, ...], list[tuple[ErrorDetails, _Place]]] = {}
    for one in found:
        place = _locate(cls, one["loc"])
        by_path.setdefault(place.path, []).append((one, place))
    path, same = next(iter(by_path.items()))
    for given, origin in origins.items():
        if path[: len(given)] == given or (len(path) < len(given) and given[: len(path)] == path):
            where = origin
    name = f"{'.'.join(path)}: " if path else ""
    more = f" (and {len(by_path) - 1} more)" if len(by_path) > 1 else ""
    return f"{where}: {name}{_complaint(cls, path, same)}{more}"


def _complaint(cls: type[Settings], path: tuple[str, ...], same: list[tuple[ErrorDetails, _Place]]) -> str:
    first, place = same[0]
    kind = first["type"]
    accepted = place.accepted()
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
    if kind in {"value_error", "assertion_error"}:
        # Said by a room's own validator, in its own words.
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

    def accepted(self) -> str:
        return accepted_by(self.annotation, self.metadata)

    def choices(self) -> list[str]:
        literals = [kind for kind in _alternatives(self.annotation) if get_origin(kind) is Literal]
        return [choice for kind in literals for choice in get_args(kind) if isinstance(choice, str)]


def _locate(cls: type[Settings], location: tuple[int | str, ...]) -> _Place:
    """Follow pydantic's location through the annotations; the names it gives to members of unions drop out."""
    place = _Place(cls)
    for depth, part in enumerate(location):
        kinds = [
            get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in _alternatives(place.annotation)
        ]
        groups = [kind for kind in kinds if _is_settings(kind)]
        known = next((kind.model_fields[part] for kind in groups if part in kind.model_fields), None)
        if known is not None:
            place.annotation, place.metadata = known.annotation, known.metadata
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
    return place


def accepted_by(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation accepts, in words: "an integer ≥ 1", "'a', 'b' or null"."""
    if get_origin(annotation) is Annotated:
        own = [bound for one in get_args(annotation)[1:] for bound in getattr(one, "metadata", [one])]
        return accepted_by(get_args(annotation)[0], [*own, *metadata])
    said = next((one for one in metadata if isinstance(one, str)), None)
    if said is not None:
        return said
    members = _alternatives(annotation)
    if len(members) > 1:
        # Bounds given for a union hold for its numbers (and texts); null has none.
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

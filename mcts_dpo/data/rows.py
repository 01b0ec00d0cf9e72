"""Reads the rows of data files: JSON lines, a JSON list, CSV or Parquet; all but Parquet also compressed with gzip.

In: a path. Out: one `Record` per row. For a bad row it is an InputError that names file and row, so that a caller can
stop there or skip the row. Text is read line by line, up to a bound.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import parse_json, read_table, shown

MAX_MIB = 1024
"""The default bound on the text in a compressed file, in MiB."""
MAX_DEPTH = 100
"""The most levels that the values of a row may be nested."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: where it is ("FILE, line 3"), its number from 1, and its values by column."""

    where: str
    number: int
    values: Mapping[str, Any]


Found = Record | InputError
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(path: Path, max_mib: int = MAX_MIB) -> Iterator[Found]:
    """The rows of a file, by its suffix (`.jsonl`, `.json`, `.csv`, each also with `.gz`, or `.parquet`).

    max_mib: the most text that a compressed file may hold, in MiB.

    Yields an InputError for a row that cannot be read. Raises InputError for a file that cannot be read at all: it does
    not exist, is of another kind, is not compressed as its name says, or holds more than `max_mib`.
    """
    kind = kind_of(path)
    if kind is None:
        raise InputError(f"{path}: a {path.suffix or 'nameless'} file (accepted: {', '.join(KINDS)}, or a folder)")
    return KINDS[kind](path, max_mib)


def kind_of(path: Path) -> str | None:
    """The suffix of a file that `read_rows` reads, without `.gz`; None for other files."""
    packed = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    return suffix if suffix in KINDS and not (packed and suffix == ".parquet") else None


# --- text --------------------------------------------------------------------------------------------


def _lines(path: Path, max_mib: int) -> Iterator[tuple[int, str | InputError]]:
    """The lines of a text file with their numbers. A line that is not UTF-8 becomes an InputError."""
    packed = path.suffix.lower() == ".gz"
    if packed and path.exists():
        require_size(path, max_mib)
    try:
        with BufferedReader(gzip.open(path), 1 << 20) if packed else path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                yield number, _decoded(raw, f"{path}, line {number}", first=number == 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def require_size(path: Path, max_mib: int) -> None:
    """Raise InputError for a compressed file that is damaged or holds more than `max_mib` MiB."""
    try:
        with gzip.open(path) as stream:
            for _ in range(max_mib):
                if len(stream.read(1 << 20)) < 1 << 20:
                    return
            if stream.read(1):
                raise InputError(f"{path}: holds more than max_mib = {max_mib} MiB (accepted: less, or raise it)")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _decoded(raw: bytes, where: str, *, first: bool) -> str | InputError:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError:
        return InputError(f"{where}: not UTF-8 text")


def _text(path: Path, max_mib: int) -> str:
    lines = []
    for _, line in _lines(path, max_mib):
        if isinstance(line, InputError):
            raise line
        lines.append(line)
    return "".join(lines)


def _json_lines(path: Path, max_mib: int) -> Iterator[Found]:
    yield from _objects(path, _lines(path, max_mib))


def _objects(path: Path, lines: Iterable[tuple[int, str | InputError]]) -> Iterator[Found]:
    """One object per line. Blank lines are skipped."""
    rows = 0
    for number, line in lines:
        if isinstance(line, InputError):
            yield line
        elif line.strip():
            rows += 1
            yield _of_line(line, f"{path}, line {number}", rows)


def _json(path: Path, max_mib: int) -> Iterator[Found]:
    text = _text(path, max_mib)
    if text.lstrip().startswith("{"):  # the hub often names JSON lines so
        yield from _objects(path, enumerate(text.split("\n"), 1))
        return
    data = parse_json(text, str(path), whole=True) if text.strip() else []
    if not isinstance(data, list):
        raise InputError(f"{path}: not a list of objects, and not one object a line")
    for number, item in enumerate(data, 1):
        yield _record(item, f"{path}, row {number}", number)


def _of_line(line: str, where: str, number: int) -> Found:
    try:
        return _record(parse_json(line, where), where, number)
    except InputError as error:
        return error


def _record(values: Any, where: str, number: int) -> Found:
    try:
        if not isinstance(values, dict):
            raise InputError(f"{where}: not an object of columns but {shown(values)}")
        require_text(values, where)
    except InputError as error:
        return error
    return Record(where, number, values)


def require_text(values: Mapping[str, Any], where: str) -> None:
    """Raise InputError, naming the column, for text with half a character, and for values nested too deep.

    Half a character is a lone surrogate: JSON can escape it, but it cannot be encoded. Too deep: beyond `MAX_DEPTH`.
    """
    for column, value in values.items():
        level: list[Any] = [column, value]
        for _ in range(MAX_DEPTH):
            for item in level:
                if isinstance(item, str) and not item.isascii() and (lone := _SURROGATE.search(item)):
                    raise InputError(f"{where}: {shown(column)}: holds {lone.group()!a}, half of a character")
            level = [inner for item in level if isinstance(item, dict | list) for inner in _inside(item)]
            if not level:
                break
        else:
            raise InputError(f"{where}: {shown(column)}: nested deeper than {MAX_DEPTH} levels")


def _inside(value: dict[Any, Any] | list[Any]) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else value


# --- CSV ---------------------------------------------------------------------------------------------


def _csv(path: Path, max_mib: int) -> Iterator[Found]:
    """Rows by the names of the header. An empty cell has no value."""
    csv.field_size_limit(2**31 - 1)  # solutions can be longer than Python's own limit of 128 KiB
    numbered = _csv_lines(path, max_mib)
    first = next(numbered, "")
    spaced = re.search(r",[ \t]+\S", first) is not None
    reader = csv.reader(_again(first, numbered), strict=True, skipinitialspace=spaced)
    header: list[str] = []
    rows, line = 0, 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _require_distinct(header, path)
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not cells:
                continue
            rows += 1
            if len(cells) != len(header):
                yield InputError(f"{where}: {len(cells)} cells, but the header has {len(header)} columns")
            else:
                yield Record(where, rows, {name: cell or None for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:  # the rows after it cannot be trusted
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _require_distinct(header: list[str], path: Path) -> None:
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}, line 1: the column {twice!r} is there twice")


def _csv_lines(path: Path, max_mib: int) -> Iterator[str]:
    for _, line in _lines(path, max_mib):
        if isinstance(line, InputError):
            raise line
        yield from re.split(r"(?<=\r)(?!\n|$)", line)  # old files end lines with CR alone


def _again(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


# --- Arrow -------------------------------------------------------------------------------------------


def _parquet(path: Path, max_mib: int) -> Iterator[Found]:
    table = read_table(path)
    narrow = narrowing(table.schema)
    number = 0
    for batch in table.to_batches(max_chunksize=1024):
        for values in _values(batch):
            number += 1
            where = f"{path}, row {number}"
            yield InputError(f"{where}: not UTF-8 text") if values is None else Record(where, number, narrow(values))


def _values(batch: Any) -> list[dict[str, Any] | None]:
    """The values of each row; None for a row whose text is not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        half = batch.num_rows // 2
        return _values(batch.slice(0, half)) + _values(batch.slice(half))


def narrowing(schema: Any) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A function that shortens the decimals in a row: 0.1 for a float32 and not 0.10000000149011612.

    schema: the Arrow schema that says which columns are short floats.
    """
    short = {field.name: narrow for field in schema if (narrow := _narrowed(field.type))}

    def narrowed(values: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = {name: narrow(values[name]) for name, narrow in short.items() if values.get(name) is not None}
        return {**values, **changed} if changed else values

    return narrowed


def _narrowed(kind: Any) -> Callable[[Any], Any] | None:
    """The function that shortens the decimals of a value of an Arrow type; None if the type needs none."""
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        numpy_type = np.float32 if pa.types.is_float32(kind) else np.float16
        return lambda value: value if value is None else float(str(numpy_type(value)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _narrowed(kind.value_type)
        return inner and (lambda value: value if value is None else [inner(item) for item in value])
    if pa.types.is_struct(kind):
        fields = {field.name: narrow for field in kind if (narrow := _narrowed(field.type))}
        return (lambda value: _narrowed_fields(value, fields)) if fields else None
    return None


def _narrowed_fields(value: Any, fields: Mapping[str, Callable[[Any], Any]]) -> Any:
    if value is None:
        return None
    return {name: fields[name](item) if name in fields else item for name, item in value.items()}


KINDS: dict[str, Callable[[Path, int], Iterator[Found]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""The reader of each kind of file, by suffix."""

"""Writes files that appear whole or not at all, and reads them back with exact errors.

Every file and directory that a stage leaves goes through `whole`. A reader, or a resumed run, never sees half of one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts_dpo.common.errors import InputError

_PARTIAL = ".partial-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>


_REASONS = {
    errno.ENOSPC: ("no space is left on the device", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EFBIG: ("the file would be too large", "make room"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission is denied", "permit it"),
    errno.EPERM: ("permission is denied", "permit it"),
}


def why_not_written(error: BaseException) -> tuple[str, str] | None:
    """The reason why a file could not be written, and the remedy; None if `error` is about something else."""
    # Rust and Arrow give the number only in the message.
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = re.search(r"(?:os error|errno) (\d+)", str(error))
        number = int(found.group(1)) if found else None
    return _REASONS.get(number) if number is not None else None


@contextmanager
def explained(folder: Path, kept: Callable[[], str]) -> Iterator[None]:
    """Turn a full disk, a size limit or a missing permission into an InputError that says which files are safe.

    folder: the place to name if the error names no file. kept: returns what is safe; called after the error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        found = why_not_written(error)
        if found is None:
            raise
        reason, remedy = found
        where = Path(os.fsdecode(getattr(error, "filename", None) or folder))
        if _PARTIAL in where.name:  # the scratch folder next to the target
            where = where.parent
        raise InputError(
            f"{where}: {reason}; nothing half-written is left and {kept()}; {remedy} and give the same command again"
        ) from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; when the block succeeds, sync it and rename it to `path`.

    The block creates a file or a directory at the yielded path. An existing `path` is replaced: at every moment, also
    if the process is killed, either the old or the new one is there. (One exception: a directory on a system that
    cannot exchange two names in one step. For an instant neither is there.) If the block raises, `path` is unchanged
    and the temporary is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}{_PARTIAL}", dir=path.parent))
    inner = scratch / path.name
    try:
        yield inner
        if not inner.exists():
            raise FileNotFoundError(f"{path}: nothing was written")
        _sync_tree(inner)
        if inner.is_dir() and path.is_dir():
            # A directory cannot be renamed over a non-empty one.
            _replace_directory(inner, path, scratch / "replaced")
        else:
            inner.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def free_name(path: Path) -> Path:
    """`path`, with as many "~" added to its name as it takes until nothing has that name."""
    while path.exists():
        path = path.with_name(path.name + "~")
    return path


def require_replaceable(folder: Path, mark: str) -> None:
    """Raise InputError unless a folder may be written here.

    It may if nothing is there, or an empty folder, or one that the same command made before: it holds the file `mark`.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
        raise InputError(f"{folder}: holds other files; accepted: a new folder, or one that this command made")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; accepted: a new folder, or one that this command made")


def _replace_directory(new: Path, old: Path, aside: Path) -> None:
    """Replace the directory `old` by `new`."""
    if _exchange(new, old):
        return
    replaced = old.rename(aside)
    try:
        new.replace(old)
    except OSError:
        replaced.rename(old)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step (Linux: renameat2(2)). False if the system cannot do that."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def sweep(directory: Path) -> None:
    """Remove temporaries of killed writers below `directory`. Call it only while nothing else writes there."""
    for left in list(Path(directory).rglob(f".*{_PARTIAL}*")):
        shutil.rmtree(left, ignore_errors=True)


def sweep_beside(path: Path) -> None:
    """Remove temporaries of killed writers of `path`, next to it. Call it only while nothing else writes `path`."""
    if path.parent.is_dir():
        for left in list(path.parent.iterdir()):
            if left.name.startswith(f".{path.name}{_PARTIAL}"):
                shutil.rmtree(left, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync_tree(child)
    _sync(path)


def standard_json(data: Any, **options: Any) -> str:
    """`data` as JSON that every reader accepts: NaN and Infinity become null.

    options: of `json.dumps`.
    """
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, **options)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON with sorted keys, whole or not at all."""
    with whole(path) as scratch:
        scratch.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def append_json_line(path: Path, data: Any) -> None:
    """Add a line of JSON to a short file. At every moment the file is either the old or the new one."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with whole(path) as scratch:
        scratch.write_text(before + json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")


def create_json(path: Path, data: Any) -> bool:
    """Write `data` as `write_json` does, if `path` does not exist. Of several processes, exactly one gets True."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}{_PARTIAL}", dir=path.parent))
    try:
        write_json(scratch / path.name, data)
        os.link(scratch / path.name, path)
        _sync(path.parent)
    except FileExistsError:
        return False
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def parse_json(text: str, where: str, *, whole: bool = False) -> Any:
    """The value of a JSON text.

    where: the place, with which messages begin. whole: `text` is a document and messages name the line; else one line.

    Raises InputError for text that is not JSON, an integer of more digits than Python reads (4,300), and nesting that
    is too deep to be read.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f", line {error.lineno}" if whole else ""
        column = "" if whole else f", column {error.colno}"
        raise InputError(f"{where}{place}: not JSON ({error.msg}{column})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deep (accepted: some hundred levels)") from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise InputError(f"{where}: an integer of more than {most} digits (accepted: fewer, or text)") from None


def require_encodable(value: Any, where: str) -> None:
    """Raise InputError for JSON-like data that holds a lone surrogate: it cannot be encoded."""
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(f"{where}: holds {half!a}, half of a character (accepted: text)") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: nested too deep (accepted: some hundred levels)") from None


def shown(value: Any, most: int = 60) -> str:
    """A value as JSON for a message: shortened if it is long, and without characters that cannot be printed."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that cannot be shown"
    return text[:most].encode("utf-8", "backslashreplace").decode()


def read_json(path: Path) -> Any:
    """Read one JSON document. Raises InputError, naming the file and line, if it is missing or malformed."""
    try:
        found = parse_json(Path(path).read_text(encoding="utf-8"), str(path), whole=True)
        require_encodable(found, str(path))
        return found
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


class TableWriter:
    """Takes the rows of a table; see `growing_table`."""

    GROUP = 1 << 13
    """Rows of a row group, which are kept in memory until it is written."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.rows = path, 0
        self._stack = stack
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._writer: Any = None

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table. All tables of a file must have the same schema and metadata."""
        self.rows += table.num_rows
        self._count += table.num_rows
        self._waiting.append(table)
        if self._count >= self.GROUP:
            self._flush(self.GROUP)

    def finish(self, empty: bool) -> None:
        """Write the remaining rows. empty: also write a file without rows."""
        if self._waiting and (self._count or (empty and not self.rows)):
            self._flush(0)

    def _flush(self, least: int) -> None:
        """Write at least one group of rows, and more while `least` rows remain."""
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            scratch = self._stack.enter_context(whole(self.path))
            options = {"compression": "zstd", "write_page_checksum": True}
            self._writer = self._stack.enter_context(pq.ParquetWriter(scratch, _sealed(table.schema), **options))
        while True:
            self._writer.write_table(table.slice(0, self.GROUP).combine_chunks())
            table = table.slice(self.GROUP)
            if table.num_rows < max(1, least):
                break
        self._waiting, self._count = [table] if table.num_rows else [], table.num_rows


@contextmanager
def growing_table(path: Path, *, empty: bool = True) -> Iterator[TableWriter]:
    """Write one Parquet file part by part. It appears, whole, when the block has succeeded.

    The bytes depend only on the rows, not on how they were divided into parts. Each page has a checksum, with which
    `read_table` and other readers notice damage. The metadata has one too (`read_schema`). empty: whether a file
    without rows is written, if any part came.
    """
    with ExitStack() as stack:
        writer = TableWriter(path, stack)
        yield writer
        writer.finish(empty)


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table in one part; see `growing_table`."""
    with growing_table(path) as writer:
        writer.add(table)


_SEAL = b"mcts_dpo.seal"
"""The entry of a table's metadata with the names of the other entries and a checksum over them. Parquet itself has only
checksums for pages."""


def _seal(metadata: Mapping[bytes, bytes], names: Sequence[str]) -> bytes:
    told = [(name, metadata.get(name.encode(), b"").hex()) for name in names]
    return json.dumps([digest(told), *names]).encode()


def _sealed(schema: pa.Schema) -> pa.Schema:
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _SEAL}
    return schema.with_metadata(
        {**metadata, _SEAL: _seal(metadata, sorted(key.decode() for key in metadata))} if metadata else None
    )


def _checked(schema: pa.Schema, path: Path) -> pa.Schema:
    """The schema without its checksum. Raises InputError if the checksum is wrong. A file without one is accepted."""
    metadata = dict(schema.metadata or {})
    seal = metadata.pop(_SEAL, None)
    if seal is not None and seal != _seal(metadata, json.loads(seal)[1:]):
        raise InputError(f"{path}: damaged: its metadata does not match its checksum")
    return schema.with_metadata(metadata or None)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors while a Parquet file is read into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a readable Parquet file ({reason})") from None


def read_schema(path: Path) -> pa.Schema:
    """The columns and metadata of a Parquet file. Raises InputError as `read_table` does."""
    with _readable(path):
        return _checked(pq.read_schema(path), path)


def read_batches(path: Path, columns: Sequence[str], rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """The given columns of one Parquet file, a batch of rows at a time. Raises InputError as `read_table` does."""
    with _readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = _checked(file.schema_arrow, path)
        absent = [name for name in columns if name not in schema.names]
        if absent:
            raise InputError(f"{path}: the column {absent[0]!r} is missing")
        yield from file.iter_batches(rows, columns=list(columns))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet file, or some of its columns.

    Raises InputError, naming the file, if it is missing or not Parquet, or lacks one of `columns`.
    """
    with _readable(path):
        wanted = None if columns is None else list(columns)
        whole_schema = read_schema(path)
        table = pq.read_table(path, columns=wanted, page_checksum_verification=True)
        absent = [name for name in columns or () if name not in table.column_names]
        if absent:
            raise InputError(f"{path}: the column {absent[0]!r} is missing")
        return table.replace_schema_metadata(whole_schema.metadata)


_SETTLED = 2.0  # seconds after a change, in which another may leave the same time stamp
_digests: dict[tuple[str, int, int, int, int], str] = {}


def file_digest(path: Path, *, cached: bool = True) -> str:
    """SHA-256 (hex) of all bytes of a file.

    cached: read a file once per process while its path, size, inode and times stay the same; False: read it every time.
    A file that changed within the last two seconds is always read. Raises OSError if it cannot be read.
    """
    about = path.stat()
    key = (os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
    if cached and key in _digests:
        return _digests[key]
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if time.time() - max(about.st_mtime, about.st_ctime) > _SETTLED:
        _digests[key] = found
    return found


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of JSON-serialisable parts. It depends neither on the order of dictionaries nor on the process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def seed_from(*parts: Any) -> int:
    """A seed in [0, 2**63) from JSON-serialisable parts: the same parts give the same seed on every machine."""
    return int(digest(*parts)[:16], 16) >> 1


def read_json_lines(path: Path) -> list[Any]:
    """Read one JSON document per line. Raises InputError naming the file and the line."""
    documents = []
    try:
        with Path(path).open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    documents.append(parse_json(line, f"{path}, line {number}"))
                    require_encodable(documents[-1], f"{path}, line {number}")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    return documents

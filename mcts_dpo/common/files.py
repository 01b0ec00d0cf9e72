"""Files that appear whole or not at all.

Every file and directory that a stage leaves
behind goes through `whole`, so that a reader (or a resumed run) never meets half of one.
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
    """Why a file could not be written and what would help, if that is what `error` says."""
    # Rust and Arrow tell the number in words only.
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = re.search(r"(?:os error|errno) (\d+)", str(error))
        number = int(found.group(1)) if found else None
    return _REASONS.get(number) if number is not None else None


@contextmanager
def explained(folder: Path, kept: Callable[[], str]) -> Iterator[None]:
    """Turn a full disk, a limit on sizes or a place where nobody may write into an InputError that says what is safe.

    folder: what is named where the error names no file. kept: tells what there is, once it has happened.
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
        if _PARTIAL in where.name:  # the scratch folder beside what was to be written
            where = where.parent
        raise InputError(
            f"{where}: {reason}; nothing half-written is left and {kept()}; {remedy} and give the same command again"
        ) from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; when the block succeeds, sync it and rename it to `path`.

    Works for a file or a directory (the block creates whichever it wants at the yielded path). An existing `path` is
    replaced: at every moment, also for a process that is killed, the old one or the new one is there. (Directories on
    a system that cannot exchange two names in one step are the exception: for an instant neither is.) When the block
    raises, `path` is untouched and the temporary is gone.
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
    """`path`, or where something is in its place the same with so many "~" behind it that nothing is."""
    while path.exists():
        path = path.with_name(path.name + "~")
    return path


def require_replaceable(folder: Path, mark: str) -> None:
    """Raise InputError unless a folder may be written in this place: nothing is there, or an empty folder, or one that
    the same command has made before, which is known by the file `mark` in it."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
        raise InputError(f"{folder}: there are other things in this folder; accepted: a new one, or one made so before")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; accepted: a folder, new or made so before")


def _replace_directory(new: Path, old: Path, aside: Path) -> None:
    """Put the directory `new` in the place of `old`, which goes."""
    if _exchange(new, old):
        return
    replaced = old.rename(aside)
    try:
        new.replace(old)
    except OSError:
        replaced.rename(old)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange what two names stand for, in one step (Linux: renameat2(2)); False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def sweep(directory: Path) -> None:
    """Remove what killed writers left below `directory`. Only while nothing else writes there."""
    for left in list(Path(directory).rglob(f".*{_PARTIAL}*")):
        shutil.rmtree(left, ignore_errors=True)


def sweep_beside(path: Path) -> None:
    """Remove what killed writers of `path` itself left beside it. Only while nothing else writes `path`."""
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
    """`data` as JSON that every reader accepts: a number that is not finite (NaN, Infinity) becomes null.

    options: as of `json.dumps`.
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
    """Add a line of JSON to a (short) file, which is at every moment the old one or the new one."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with whole(path) as scratch:
        scratch.write_text(before + json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")


def create_json(path: Path, data: Any) -> bool:
    """Write `data` as `write_json` does, but only where nothing is. Of several processes one is told True."""
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
    """The value of a JSON text. Raises InputError, one line that begins with `where`, for text that is not JSON, an
    integer of more digits than Python reads (4,300), and nesting too deep to be read.

    whole: `text` is a whole document, of which a message names the line; else it is one line.
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
    """Raise InputError for JSON-like data with half of a surrogate pair in it, which no file and no tokenizer takes."""
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(f"{where}: holds {half!a}, half of a character (accepted: text)") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: nested too deep (accepted: some hundred levels)") from None


def shown(value: Any, most: int = 60) -> str:
    """A value as JSON for a message: its beginning where it is long, nothing in it that cannot be printed."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that cannot be shown"
    return text[:most].encode("utf-8", "backslashreplace").decode()


def read_json(path: Path) -> Any:
    """Read one JSON document. Raises InputError naming the file (and line) when it is missing or malformed."""
    try:
        found = parse_json(Path(path).read_text(encoding="utf-8"), str(path), whole=True)
        require_encodable(found, str(path))
        return found
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


class TableWriter:
    """Where the rows of a table go; see `growing_table`."""

    GROUP = 1 << 13
    """Rows of a row group: so many are kept in memory."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.rows = path, 0
        self._stack = stack
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._writer: Any = None

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table. All tables of a file have the same schema, its metadata included."""
        self.rows += table.num_rows
        self._count += table.num_rows
        self._waiting.append(table)
        if self._count >= self.GROUP:
            self._flush(self.GROUP)

    def finish(self, empty: bool) -> None:
        """Write what is left. empty: write a file without rows, too."""
        if self._waiting and (self._count or (empty and not self.rows)):
            self._flush(0)

    def _flush(self, least: int) -> None:
        """Write groups of rows as long as `least` are left, and one at any rate."""
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
    """Write one Parquet file part by part, whole or not at all: it appears when the block has succeeded.

    The bytes depend on the rows alone, not on the parts in which they came. Each page carries a checksum, by which
    `read_table` (and other readers) notice damage; so does its metadata (`read_schema`). empty: whether a file
    without rows appears (if any part came).
    """
    with ExitStack() as stack:
        writer = TableWriter(path, stack)
        yield writer
        writer.finish(empty)


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as `growing_table` does, in one go."""
    with growing_table(path) as writer:
        writer.add(table)


_SEAL = b"mcts_dpo.seal"
"""In a table's metadata: the names of the other entries, and a checksum over them. Parquet has checksums for pages
only."""


def _seal(metadata: Mapping[bytes, bytes], names: Sequence[str]) -> bytes:
    told = [(name, metadata.get(name.encode(), b"").hex()) for name in names]
    return json.dumps([digest(told), *names]).encode()


def _sealed(schema: pa.Schema) -> pa.Schema:
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _SEAL}
    return schema.with_metadata(
        {**metadata, _SEAL: _seal(metadata, sorted(key.decode() for key in metadata))} if metadata else None
    )


def _checked(schema: pa.Schema, path: Path) -> pa.Schema:
    """The schema without its checksum. Raises InputError where that does not fit; a file need not have one."""
    metadata = dict(schema.metadata or {})
    seal = metadata.pop(_SEAL, None)
    if seal is not None and seal != _seal(metadata, json.loads(seal)[1:]):
        raise InputError(f"{path}: damaged: what it says of itself does not fit its checksum")
    return schema.with_metadata(metadata or None)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong while a Parquet file is read becomes an InputError of one line."""
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
    """The columns of a Parquet file and what it says of itself. Raises InputError as `read_table` does."""
    with _readable(path):
        return _checked(pq.read_schema(path), path)


def read_batches(path: Path, columns: Sequence[str], rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """Some columns of one Parquet file, some rows at a time. Raises InputError as `read_table` does."""
    with _readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = _checked(file.schema_arrow, path)
        absent = [name for name in columns if name not in schema.names]
        if absent:
            raise InputError(f"{path}: the column {absent[0]!r} is missing")
        yield from file.iter_batches(rows, columns=list(columns))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet file, or some of its columns.

    Raises InputError naming the file when it is missing or not Parquet, or lacks one of `columns`.
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

    cached: a file is read once per process as long as its path, size, inode and times stay; False reads it always.
    A file that changed within the last two seconds is never taken from the cache. Raises OSError if it cannot be read.
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
    """SHA-256 (hex) of JSON-serialisable parts, independent of dictionary order. Stable across processes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def seed_from(*parts: Any) -> int:
    """A seed in [0, 2**63) drawn from JSON-serialisable parts: the same parts, the same seed, anywhere."""
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

"""Files that appear whole or not at all, and the one error type for input that a user can mend.

Floor 0: knows nothing of problems, models or stages. Every file and directory that a stage leaves
behind goes through `whole`, so that a reader (or a resumed run) never meets half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class InputError(ValueError):
    """Input that its giver can mend. The message is one line: what, where, what was given, what would do.

    The command line prints it without a traceback and exits with code 2.
    """


_PARTIAL = ".partial-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; when the block succeeds, sync it and rename it to `path`.

    Works for a file or a directory (the block creates whichever it wants at the yielded path). An
    existing `path` is replaced. When the block raises, `path` is untouched and the temporary is gone.
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
            # A directory cannot be renamed over a non-empty one: the old one steps aside, and back if need be.
            replaced = path.rename(scratch / "replaced")
            try:
                inner.replace(path)
            except OSError:
                replaced.rename(path)
                raise
        else:
            inner.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON with sorted keys, whole or not at all."""
    with whole(path) as scratch:
        scratch.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read one JSON document. Raises InputError naming the file (and line) when it is missing or malformed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as one Parquet file, whole or not at all; the bytes depend on the table alone."""
    with whole(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read one Parquet file. Raises InputError naming the file when it is missing or not Parquet."""
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


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
                    try:
                        documents.append(json.loads(line))
                    except json.JSONDecodeError as error:
                        raise InputError(f"{path}, line {number}: not JSON ({error.msg})") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    return documents

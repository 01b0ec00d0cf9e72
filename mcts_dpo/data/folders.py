"""Opens data sets with the library `datasets`: folders, the output of `save_to_disk`, names on the hub.

In: a function that opens one. Out: its result, without progress bars and messages of the library. If a file of a folder
cannot be read, the error names the row. A compressed file that is larger than a bound is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mcts_dpo.common.errors import InputError
from mcts_dpo.data.rows import kind_of, read_rows, require_size

Opened = TypeVar("Opened")


def opened(load: Callable[[], Opened], folder: Path, max_mib: int) -> Opened:
    """The result of `load`.

    folder: the folder that it reads; a path that is no folder is ignored. max_mib: see `rows.read_rows`.

    Raises InputError for a file of the folder that is too large. If `load` fails, raises InputError for the first row
    that cannot be read, or else the error of `load`.
    """
    files = _data_files(folder)
    for path in files:
        if path.suffix.lower() == ".gz":
            require_size(path, max_mib)
    try:
        with _quiet():
            return load()
    except InputError:
        raise
    except Exception:
        for path in files:
            damage = _damage(path, max_mib)
            if damage is not None:
                raise damage from None
        raise


_ABOUT = ("state.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json")
"""Files that `datasets` writes about a data set; the first two only with `save_to_disk`."""


def _data_files(folder: Path) -> list[Path]:
    """The files with rows in a folder. A folder that `save_to_disk` wrote has none: its rows are in Arrow's format."""
    if not folder.is_dir() or any((folder / name).exists() for name in _ABOUT[:2]):
        return []
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _ABOUT)
    return [path for path in found if kind_of(path)]


def _damage(path: Path, max_mib: int) -> InputError | None:
    try:
        return next((row for row in read_rows(path, max_mib) if isinstance(row, InputError)), None)
    except InputError as error:
        return error


@contextmanager
def _quiet() -> Iterator[None]:
    """`datasets` draws no bars and logs nothing while the block runs."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    level, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()

"""Where TRL-style rows come from: a file, a folder that `datasets` wrote, the hub.

In: a path or a name. Out: rows one by one, or, for a row that cannot be read, an InputError that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.data.folders import opened
from mcts_dpo.data.rows import MAX_MIB, kind_of, narrowing, read_rows
from mcts_dpo.training.data.fields import Row

IDS = "prompt_tokens"
"""The column by which a table of ours is known."""


def rows_of(source: str | Path, split: str = "train", max_mib: int = MAX_MIB) -> Iterator[Row | InputError]:
    """The rows of a file, or of a data set by name; an InputError instead of a row that cannot be read.

    Raises InputError naming what cannot be read at all.
    """
    path = Path(source)
    if kind_of(path) in (".jsonl", ".json", ".parquet"):
        for found in read_rows(path, max_mib):
            yield found if isinstance(found, InputError) else Row(found.values, found.where)
    elif path.is_file():
        raise InputError(f"{source}: not preference data (accepted: a .jsonl or .parquet file, or a data set's name)")
    elif str(source).startswith(("/", ".", "~")) and not path.exists():
        raise InputError(f"{source}: no such file")
    else:
        yield from _hub_rows(str(source), split, max_mib)


def _hub_rows(name: str, split: str, max_mib: int) -> Iterator[Row | InputError]:
    path, _, configuration = name.partition(":")

    def load() -> Any:
        return _saved(Path(path), split) if _is_saved(Path(path)) else _published(path, configuration, split)

    try:
        data = opened(load, Path(path), max_mib)
    except InputError:
        raise
    except Exception as error:  # whatever the hub's client of the day raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "not a folder that `datasets` reads" if Path(path).is_dir() else "no such file or data set on the hub"
        raise InputError(f"{name}: {what} ({reason})") from None
    if IDS in data.column_names:
        raise InputError(
            f"{name}: holds token ids ({IDS}), which its text would not give back (accepted: the .parquet file itself)"
        )
    narrow = narrowing(data.features.arrow_schema)
    for number, values in enumerate(data, 1):
        yield Row(narrow(values), f"{name}, row {number}")


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved(folder: Path, split: str) -> Any:
    from datasets import Dataset, load_from_disk

    found = load_from_disk(folder)
    if isinstance(found, Dataset):
        return found
    if split not in found:
        raise ValueError(f"Unknown split {split!r}; it has {', '.join(found)}")
    return found[split]


def _published(path: str, configuration: str, split: str) -> Any:
    from datasets import load_dataset

    return load_dataset(path, configuration or None, split=split)

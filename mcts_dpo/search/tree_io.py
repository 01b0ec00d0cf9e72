"""Writes a forest as one Parquet file, and reads it again. A row is a node; the schema's metadata describes the trees.

The columns are the arrays of `tree_schema.NODE_FIELDS` under their own names (except `offset`, which the list columns
imply), `node` (the row number), `problem_id`, `text`, `reply`, `answer`, `finish` (as its name), `tokens`, `logprobs`,
and `reward_KIND` (the raw scores of each kind of reward). Any reader of Parquet can open the file, for example
`datasets.load_dataset("parquet")`. The bytes depend only on the forest and on the `made_with` given to `save`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_schema, read_table, write_table
from mcts_dpo.search.tree_schema import FINISHES, NODE_FIELDS, Contents, TreeInfo

if TYPE_CHECKING:
    from mcts_dpo.search.tree import Forest

FORMAT = 4
_FIRST = 1
"""The first format. Its column `confidence` holds the scores of the self-evaluation. It has no column for the scores of
the outcome reward."""
_READ = (_FIRST, 2, 3, FORMAT)
"""The formats that are read. Before format 3 rewards added up along a path, and there was no column `state_reward`.
Before format 4 there were no replies."""
_REPLIES = ("reply_length", "reply_reward")
_REWARD = "reward_"
_KEY = b"mcts_dpo.forest"
_MADE_WITH = b"mcts_dpo.made_with"


def to_table(forest: Forest) -> pa.Table:
    """Convert a forest to an Arrow table with one row per node."""
    count = len(forest)
    bounds = np.append(forest.offset, len(forest.tokens)).astype(np.int32)
    columns: dict[str, Any] = {
        "node": np.arange(count, dtype=np.int32),
        "problem_id": pa.array([forest.trees[tree].problem_id for tree in forest.tree], pa.string()),
    }
    for name, _, _, _ in NODE_FIELDS:
        if name == "finish":
            columns[name] = pa.array([FINISHES[code] for code in forest.finish], pa.string())
        elif name != "offset":
            columns[name] = pa.array(getattr(forest, name))
    columns |= {_REWARD + kind: pa.array(scores) for kind, scores in forest.scores.items()}
    columns["text"] = pa.array(forest.texts, pa.string())
    columns["reply"] = pa.array(forest.replies, pa.string())
    columns["answer"] = pa.array(forest.answers, pa.string())
    columns["tokens"] = pa.ListArray.from_arrays(pa.array(bounds), pa.array(forest.tokens))
    columns["logprobs"] = pa.ListArray.from_arrays(pa.array(bounds), pa.array(forest.logprobs))
    about = {
        "format": FORMAT,
        "tokenizer": forest.tokenizer,
        "settings": forest.settings,
        "rewards": list(forest.scores),
        "trees": [asdict(tree) for tree in forest.trees],
    }
    return pa.table(columns).replace_schema_metadata(
        {_KEY: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}
    )


@contextmanager
def _as_written(where: str) -> Iterator[None]:
    """Turn any error about contents that `to_table` does not write into an InputError of one line.

    where: the source, for the message.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{where}: a forest that is not as it was written ({type(error).__name__}: {reason})"
        ) from None


def from_table(table: pa.Table, where: str) -> Contents:
    """Convert a table of `to_table` back to a forest's contents. Raises InputError that names the source, `where`."""
    with _as_written(where):
        return _from_table(table, where)


def _from_table(table: pa.Table, where: str) -> Contents:
    about = _about(table.schema, where)
    kinds = about["rewards"] if about["format"] != _FIRST else ()
    stored = {"state_reward": "reward"} if about["format"] < FORMAT else {}
    absent = _REPLIES if about["format"] < FORMAT else ()
    wanted = [stored.get(name, name) for name, _, _, _ in NODE_FIELDS if name not in ("offset", *absent)]
    wanted += ["text", "answer", "tokens", "logprobs"] + ([] if absent else ["reply"])
    wanted += [_REWARD + kind for kind in kinds]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise InputError(f"{where}: a forest without the column {missing[0]!r}")
    rows: dict[str, Any] = {}
    for name, dtype, empty, _ in NODE_FIELDS:
        if name in absent:
            rows[name] = np.full(table.num_rows, empty, dtype)
        elif name == "finish":
            rows[name] = np.array([FINISHES.index(word) for word in table[name].to_pylist()], dtype)
        elif name == "offset":
            lengths = table["tokens"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
            rows[name] = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)[:-1])) if len(lengths) else []
            rows[name] = np.asarray(rows[name], dtype)
        else:
            rows[name] = np.array(table[stored.get(name, name)].to_numpy(), dtype)
    arena = {
        "tokens": np.array(table["tokens"].combine_chunks().flatten(), np.int32),
        "logprobs": np.array(table["logprobs"].combine_chunks().flatten(), np.float32),
    }
    scores = _scores_of_first(table, rows) if about["format"] == _FIRST else _scores(table, kinds)
    texts, answers = table["text"].to_pylist(), table["answer"].to_pylist()
    replies = [""] * len(texts) if absent else table["reply"].to_pylist()
    return Contents(about["settings"], about["tokenizer"], rows, scores, arena, texts, answers, _infos(about), replies)


def _scores(table: pa.Table, kinds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    return {kind: np.array(table[_REWARD + kind].to_numpy(), np.float64) for kind in kinds}


def _scores_of_first(table: pa.Table, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """The raw scores of a file of the first format: the outcome, and the self-evaluation if the file has any score."""
    outcome = rows["outcome"].astype(np.float64)
    outcome[outcome == 0] = np.nan
    confidence = np.array(table["confidence"].to_numpy(), np.float64)
    return {"outcome": outcome} | ({} if np.isnan(confidence).all() else {"self_evaluation": confidence})


def _about(schema: pa.Schema, where: str) -> dict[str, Any]:
    about: dict[str, Any] | None = json.loads((schema.metadata or {}).get(_KEY, b"null"))
    if about is None:
        raise InputError(f"{where}: not a forest (no {_KEY.decode()!r} in its metadata); accepted: a file of `search`")
    if about["format"] not in _READ:
        accepted = ", ".join(map(str, _READ))
        raise InputError(f"{where}: a forest of format {about['format']}; accepted: {accepted}")
    return about


def _infos(about: Mapping[str, Any]) -> list[TreeInfo]:
    return [TreeInfo(**{**info, "prompt_tokens": tuple(info["prompt_tokens"])}) for info in about["trees"]]


def save(forest: Forest, path: Path, made_with: Mapping[str, str] | None = None) -> None:
    """Write `forest` to `path`, whole or not at all.

    made_with: digests, by name, of everything that the trees depend on. They are stored in the file.
    """
    table = to_table(forest)
    if made_with is not None:
        table = table.replace_schema_metadata({**table.schema.metadata, _MADE_WITH: json.dumps(made_with)})
    write_table(path, table)


def made_with(path: Path) -> dict[str, str]:
    """The digests that `save` stored as `made_with`. {} if there are none.

    Raises InputError if the file is missing or no Parquet file.
    """
    found: dict[str, str] = json.loads((read_schema(path).metadata or {}).get(_MADE_WITH, b"{}"))
    return found


def is_forest(path: Path) -> bool:
    """Whether a file is one of trees. Any other file, or none, gives False."""
    try:
        return _KEY in (read_schema(path).metadata or {})
    except InputError:
        return False


def tree_infos(path: Path) -> list[TreeInfo]:
    """The `TreeInfo` of each tree of a file. Nodes are not read. Raises InputError as `load` does."""
    with _as_written(str(path)):
        return _infos(_about(read_schema(path), str(path)))


def tree_sizes(path: Path) -> list[int]:
    """The number of nodes of each tree of a file. Only one column is read. Raises InputError as `load` does."""
    count = len(tree_infos(path))
    sizes: list[int] = np.bincount(read_table(path, ["tree"])["tree"].to_numpy(), minlength=count).tolist()
    return sizes


def settings_of(path: Path) -> dict[str, Any]:
    """The settings with which the trees of a file were searched. Raises InputError as `load` does."""
    found: dict[str, Any] = _about(read_schema(path), str(path))["settings"]
    return found


def load(path: Path) -> Contents:
    """Read a forest's contents.

    Raises InputError that names the file if it is missing or not a forest of a known format.
    """
    return from_table(read_table(path), str(path))

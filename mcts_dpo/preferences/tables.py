"""Turns files of trees into tables of training data, one shard at a time.

In: one shard of trees (a file), the settings. Out: its pairs, lists of siblings, solutions and labelled steps. Shards
are independent, so any process can read them, in any order. The tables of many shards are written one by one: only one
shard's trees and a few thousand rows are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import growing_table
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions, Steps
from mcts_dpo.preferences.extract import PreferenceSettings, extract_pairs, extract_solutions
from mcts_dpo.preferences.siblings import extract_siblings
from mcts_dpo.preferences.steps import extract_steps
from mcts_dpo.search import Forest


class Tables(NamedTuple):
    """The tables of training data. trees: the number of trees that were read."""

    pairs: Pairs
    siblings: Siblings
    solutions: Solutions
    steps: Steps
    trees: int = 0


class Counts(NamedTuple):
    """The numbers of pairs, lists of siblings, solutions and paths of labelled steps, and of trees that were read."""

    pairs: int
    lists: int
    solutions: int
    paths: int
    trees: int


def tables_of(shard: Path, settings: PreferenceSettings) -> Tables:
    """The tables of one file of trees. Raises InputError, naming the file, if it cannot be read."""
    trees = [Forest.load(shard)]
    return Tables(
        extract_pairs(trees, settings),
        extract_siblings(trees, settings),
        extract_solutions(trees, settings),
        extract_steps(trees),
        len(trees[0].trees),
    )


def save_tables(parts: Iterable[Tables], folder: Path) -> Counts:
    """Write pairs, siblings, solutions and steps.parquet in `folder`, each whole or not at all.

    parts: the tables of the shards, in order. The files hold the rows of all of them.

    Raises InputError if there is no part, or if tokenizers differ; then nothing is written.
    """
    paths = [folder / f"{table.what}.parquet" for table in (Pairs, Siblings, Solutions, Steps)]
    return write_parts(parts, paths, lambda table, _: table, empty=True)


def write_parts(parts: Iterable[Tables], paths: list[Path], shown: Callable[[Any, int], Any], *, empty: bool) -> Counts:
    """Append the four tables of every part to the four files of `paths`.

    shown: from an Arrow table and its index among the four to the table that is written. empty: also write files
    without rows. Raises InputError as `save_tables` does.
    """
    found = Counts(0, 0, 0, 0, 0)
    first: Tables | None = None
    with ExitStack() as stack:
        writers = [stack.enter_context(growing_table(path, empty=empty)) for path in paths]
        for part in parts:
            first = first or part
            tables = (part.pairs, part.siblings, part.solutions, part.steps)
            for place, (table, writer) in enumerate(zip(tables, writers, strict=True)):
                table.require_tokenizer(first.pairs.tokenizer)
                writer.add(shown(table.table, place))
            more = (len(part.pairs), part.siblings.lists, len(part.solutions), len(part.steps), part.trees)
            found = Counts(*(a + b for a, b in zip(found, more, strict=True)))
        if first is None:
            raise InputError("no trees, so no tables")
    return found

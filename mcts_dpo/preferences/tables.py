"""All that a file of trees has to teach, as tables: the unit of work in which a round's trees become its data.

In: one shard of trees (a file), the settings. Out: its pairs, lists of siblings and solutions. Shards depend on nothing
but themselves, so that they can be read anywhere and one after the other: only one shard's trees are ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions
from mcts_dpo.preferences.extract import PreferenceSettings, extract_pairs, extract_solutions
from mcts_dpo.preferences.lists import extract_siblings
from mcts_dpo.search import Forest


class Tables(NamedTuple):
    """What is learned from: see the classes of the three tables."""

    pairs: Pairs
    siblings: Siblings
    solutions: Solutions

    def save(self, folder: Path) -> None:
        """Write each to its own Parquet file in `folder`, named after what it holds."""
        for table in self:
            table.save(folder / f"{table.what}.parquet")


def tables_of(shard: Path, settings: PreferenceSettings) -> Tables:
    """The tables of one file of trees. Raises InputError naming it if it cannot be read."""
    trees = [Forest.load(shard)]
    return Tables(extract_pairs(trees, settings), extract_siblings(trees, settings), extract_solutions(trees, settings))


def concatenated(parts: Iterable[Tables]) -> Tables:
    """The tables of several shards, in their order: equal to those of all their trees together.

    Raises InputError when there is none, or when their tokenizers differ.
    """
    found = list(parts)
    return Tables(
        Pairs.concatenate([part.pairs for part in found]),
        Siblings.concatenate([part.siblings for part in found]),
        Solutions.concatenate([part.solutions for part in found]),
    )

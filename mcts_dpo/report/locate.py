"""Finds the trees of a problem in a run, a folder of shards, or one shard."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress, silent, tracked
from mcts_dpo.search import Forest, TreeInfo
from mcts_dpo.search.tree_io import tree_infos, tree_sizes


def find_trees(
    source: Path, problem: str | None, round_: int | None = None, progress: Progress = silent
) -> Iterator[tuple[str, Forest, int]]:
    """(place, forest, index in the forest) of each tree of `problem`, or of all problems if it is None.

    Only files with such a tree are read, one after the other.
    source: a run directory, a folder of tree files, or one tree file. round_: 1-based; only of a run directory.

    Raises InputError where there are no trees, or none of that problem (with the nearest ids).
    """
    files = _files(Path(source), round_)
    ids: list[str] = []
    found = False
    for file in tracked(progress, "read trees", files):
        mine = [info.problem_id for info in tree_infos(file)]
        wanted = [index for index, name in enumerate(mine) if problem is None or name == problem]
        found = found or bool(wanted)
        if wanted:
            forest = Forest.load(file)
            yield from ((str(file), forest, index) for index in wanted)
            del forest
        elif not found:
            ids += mine
    if not found:
        near = get_close_matches(problem or "", ids, n=3, cutoff=0.5) or ids[:3]
        raise InputError(f"{source}: no tree of problem {problem!r} (nearest: {', '.join(near)})")


def list_trees(source: Path, round_: int | None = None) -> Iterator[tuple[str, TreeInfo, int]]:
    """(place, information, number of nodes) of each tree, without reading the trees themselves.

    source, round_: as of `find_trees`. Raises InputError where there are no trees.
    """
    for file in _files(Path(source), round_):
        for info, nodes in zip(tree_infos(file), tree_sizes(file), strict=True):
            yield str(file), info, nodes


def _files(source: Path, round_: int | None) -> list[Path]:
    if source.is_file():
        return [source]
    if (source / "config.yaml").exists():
        places = sorted(source.glob("round-*")) if round_ is None else [source / f"round-{round_ - 1:03d}"]
        files = [file for place in places for file in sorted((place / "trees").glob("*.parquet"))]
    else:
        files = sorted(source.glob("*.parquet"))
    if not files:
        part = "" if round_ is None else f" of round {round_}"
        raise InputError(f"{source}: no tree files{part} (accepted: a run directory, a folder of *.parquet, or a file)")
    return files

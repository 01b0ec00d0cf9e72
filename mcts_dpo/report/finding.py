"""Which tree is meant: the trees of a problem in a run, a folder of shards, or one shard."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mcts_dpo.files import InputError
from mcts_dpo.progress import Progress, silent, tracked
from mcts_dpo.search import Forest


def find_trees(
    source: Path, problem: str | None, round_: int | None = None, progress: Progress = silent
) -> list[tuple[str, Forest, int]]:
    """(where it lies, its forest, its index there) of each tree of `problem`, or of all problems if it is None.

    source: a run directory, a folder of tree files, or one tree file. round_: 1-based; only of a run directory.

    Raises InputError where there are no trees, or none of that problem (with the nearest ids).
    """
    files = _files(Path(source), round_)
    found, ids = [], []
    for file in tracked(progress, "read trees", files):
        forest = Forest.load(file)
        for index, info in enumerate(forest.trees):
            ids.append(info.problem_id)
            if problem is None or info.problem_id == problem:
                found.append((str(file), forest, index))
    if not found:
        near = get_close_matches(problem or "", ids, n=3, cutoff=0.5) or ids[:3]
        raise InputError(f"{source}: no tree of problem {problem!r} (nearest: {', '.join(near)})")
    return found


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

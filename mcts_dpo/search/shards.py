"""A search over many problems as files: one shard of trees per Parquet file, each the unit of resumption.

In: problems and a way to get an engine. Out: `shard-0000.parquet` and so on in a folder. A shard that is there is
not searched again; the engine is emptied before each shard, so that a shard's bytes depend on its own problems
alone. Knows nothing of rounds or run directories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mcts_dpo.engines.base import Engine
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, part_of, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.mcts import search
from mcts_dpo.search.settings import SearchSettings


def search_shards(
    problems: Sequence[Problem],
    engine: Callable[[], Engine],
    folder: Path,
    *,
    shard_size: int,
    prompt: PromptSettings,
    settings: SearchSettings,
    progress: Progress = silent,
) -> list[Path]:
    """Search all problems, `shard_size` at a time. Returns the shards' paths, in the order of the problems.

    engine: called only when there is a shard to search.
    """
    shards = []
    running: Engine | None = None
    for start in range(0, len(problems), shard_size):
        shard = Path(folder) / f"shard-{start // shard_size:04d}.parquet"
        shards.append(shard)
        if shard.exists():
            continue
        running = running or engine()
        running.reset()
        part = problems[start : start + shard_size]
        share = part_of(progress, before=start, total=len(problems))
        search(part, running, prompt=prompt, settings=settings, progress=share).save(shard)
    return shards

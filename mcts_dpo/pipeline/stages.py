"""Runs one stage of a round: skips it if it is finished, checks its files, and records what it wrote.

`Executors` holds the functions that work on shards. By default they run in this process. Those of
`mcts_dpo.integrations.ray` run on many machines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mcts_dpo.common.files import append_json_line, read_json, write_json
from mcts_dpo.common.progress import Progress
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.run_directory import fingerprint, set_damaged_aside, undo_after
from mcts_dpo.search import SearchSettings, policy_fingerprint, search_shards
from mcts_dpo.training.memory import release

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ShardSearch(Protocol):
    """A function that searches the trees of a round: in this process (`search_locally`) or on many machines."""

    def __call__(
        self,
        problems: Sequence[Problem],
        policy: str,
        engine: Callable[[], Engine],
        folder: Path,
        config: RunConfig,
        settings: SearchSettings,
        progress: Progress,
    ) -> None:
        """Search with `policy` and write one file of trees into `folder` per `config.shard_size` problems.

        engine: returns this process's own engine with the policy's weights. settings: of the search, with the round's
        seed. Shards that are in the folder already are not searched again.
        """
        ...


def search_locally(
    problems: Sequence[Problem],
    policy: str,
    engine: Callable[[], Engine],
    folder: Path,
    config: RunConfig,
    settings: SearchSettings,
    progress: Progress,
) -> None:
    """Search the trees of a round in this process; see `ShardSearch`."""
    search_shards(
        problems,
        engine,
        folder,
        shard_size=config.shard_size,
        prompt=config.prompt,
        settings=settings,
        policy=policy_fingerprint(policy),
        progress=progress,
        trusting=True,  # the run directory belongs to this config, or was taken over with its finished stages
    )


class ShardMap(Protocol):
    """A function that applies another to every shard: in this process (`map`) or on many machines."""

    def __call__(self, function: Callable[[Path], Result], shards: Iterable[Path], /) -> Iterable[Result]:
        """`function(shard)` of each shard, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Executors:
    """The functions that do the work on shards: search them, and read them."""

    search: ShardSearch = search_locally
    each: ShardMap = map


LOCAL = Executors()
"""This process does all the work."""


@dataclass(slots=True)
class StageRunner:
    """Runs the stages of one run. They share the config, the directory, and one engine with some policy's weights."""

    config: RunConfig
    directory: Path
    executors: Executors
    progress: Progress
    engine: Engine | None = None
    loaded: str = ""

    def engine_for(self, policy: str) -> Engine:
        """The engine with the weights of `policy` and an empty cache."""
        if self.loaded != policy:
            self.progress("load model", 0, 0)
        if self.engine is None:
            self.engine = load_engine(policy, settings=self.config.engine)
        elif self.loaded != policy:
            self.engine.reload(Path(policy))
        self.loaded = policy
        self.engine.reset()
        return self.engine

    def let_go(self) -> None:
        """Free the memory of this process's engine: other processes need it."""
        if self.engine is None or not engine_kind(self.config.engine.kind).local:
            return
        self.engine.close()
        self.engine, self.loaded = None, ""
        release()

    def stage(self, place: Path, name: str, outputs: Callable[[], Sequence[Path]], work: Callable[[], None]) -> None:
        """Run `work` unless the manifest `place`/stages/`name`.json says it is done; then write the manifest.

        The files of a finished stage must be byte for byte as it wrote them. Otherwise they are set aside and the stage
        runs again. If its files then differ, the later stages, which have read them, run again too.
        """
        manifest = place / "stages" / f"{name}.json"
        expected: dict[str, Any] | None = None
        if manifest.exists():
            damaged = set_damaged_aside(manifest, place)
            if not damaged:
                return
            for line in damaged:
                logger.warning("%s; the stage %s of %s is done again", line, name, place.name)
            expected = read_json(manifest)["files"]
        started = time.monotonic()
        work()
        files = {str(path.relative_to(place)): fingerprint(path) for path in outputs()}
        if expected is not None and files != expected:
            again = ", ".join(undo_after(name, place))
            logger.warning(
                "%s: the stage %s came out different from before (it does not repeat itself)%s",
                place,
                name,
                f"; done again, too: {again}" if again else "",
            )
        write_json(manifest, {"stage": name, "files": files})
        took = {"place": place.name, "stage": name, "seconds": round(time.monotonic() - started, 3)}
        append_json_line(self.directory / "timings.jsonl", took)

"""A search over many problems as files: one shard of trees per Parquet file, each the unit of resumption.

In: problems and a way to get an engine. Out: `shard-0000.parquet` and so on in a folder.

A finished shard is not searched again; one of another search is refused. An unfinished shard continues from its journal
(journal.py), which is next to it and holds everything that the engine gave before the search was killed. With
`resume: shard` it is searched from the start. The journal is removed when the shard is whole. With
`schedule: synchronous` the engine is emptied before each shard, so that a shard's bytes depend on its own problems
alone. With `schedule: asynchronous` the trees of the next shard begin while the last ones of a shard still run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.retry import EngineDiedError
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.journal import Journal, differing, identity
from mcts_dpo.search.mcts import admit, require_unique
from mcts_dpo.search.runner import Runner, RunnerClock
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import SearchState, Totals, begin
from mcts_dpo.search.tree_io import made_with, save


@dataclass(frozen=True, slots=True)
class Shard:
    """The problems from `first` on that go into one file."""

    path: Path
    first: int
    problems: Sequence[Problem]


def search_shards(
    problems: Sequence[Problem],
    engine: Callable[[], Engine],
    folder: Path,
    *,
    shard_size: int,
    prompt: PromptSettings,
    settings: SearchSettings,
    policy: str = "",
    progress: Progress = silent,
    clock: RunnerClock | None = None,
    trusting: bool = False,
) -> list[Path]:
    """Search all problems, `shard_size` at a time. Returns the shards' paths, in the order of the problems.

    engine: called only when there is a shard to search.
    policy: what tells the policy's weights from others (`policy_fingerprint`); a journal or shard of another is
            refused.
    trusting: take finished shards as they are; the caller has checked that they are of this search.

    Raises InputError if two problems share an id, or if the folder's files are of another search or in use. Raises
    EngineDiedError if the engine serves nothing any more; no tree fails because of it.
    """
    shards = shards_of(problems, folder, shard_size)
    for shard in () if trusting else shards:
        if shard.path.exists():
            _require_own(shard, identity(settings, prompt, shard.problems, "train", policy))
    missing = missing_shards(shards)
    if missing:
        search_some(
            missing,
            engine(),
            total=len(problems),
            prompt=prompt,
            settings=settings,
            policy=policy,
            progress=progress,
            clock=clock,
        )
    return [shard.path for shard in shards]


def shards_of(problems: Sequence[Problem], folder: Path, shard_size: int) -> list[Shard]:
    """How the problems are shared out among files. Raises InputError if two of them share an id."""
    require_unique(problems)
    return [
        Shard(Path(folder) / f"shard-{first // shard_size:04d}.parquet", first, problems[first : first + shard_size])
        for first in range(0, len(problems), shard_size)
    ]


def missing_shards(shards: Sequence[Shard]) -> list[Shard]:
    """Those whose file is not there; what is left of the journals of the others goes."""
    missing = [shard for shard in shards if not shard.path.exists()]
    for shard in shards:
        if shard not in missing:  # killed after the shard was whole, before its journal went
            _journal(shard).unlink(missing_ok=True)
    return missing


def _require_own(shard: Shard, wanted: Mapping[str, str]) -> None:
    """Raise InputError if a finished shard is of another search. One that does not say whose it is, is not refused."""
    known = made_with(shard.path)
    other = differing(known, wanted) if known else []
    if other:
        raise InputError(
            f"{shard.path}: trees of another search ({', '.join(other)} differ); give another folder, or delete it to "
            "search its shard anew"
        )


def search_some(
    shards: Sequence[Shard],
    engine: Engine,
    *,
    total: int,
    prompt: PromptSettings,
    settings: SearchSettings,
    policy: str = "",
    progress: Progress = silent,
    clock: RunnerClock | None = None,
) -> None:
    """Search these shards, whose files are not there. total: problems of the whole search, for `progress`."""
    shards_search = _ShardsSearch(shards, engine, prompt, settings, policy, total, progress)
    if settings.schedule == "synchronous":
        for shard in shards:  # one after the other, so that a shard's bytes depend on its own problems alone
            engine.reset()
            shards_search.search([shard], clock)
    else:
        engine.reset()
        shards_search.search(shards, clock)


@dataclass(slots=True)
class _Opened:
    """A shard that is being searched."""

    shard: Shard
    state: SearchState
    journal: Journal


class _ShardsSearch:
    """The search of the missing shards. finished: problems of the whole search that are done."""

    def __init__(
        self,
        shards: Sequence[Shard],
        engine: Engine,
        prompt: PromptSettings,
        settings: SearchSettings,
        policy: str,
        total: int,
        progress: Progress,
    ) -> None:
        self._engine, self._prompt, self._settings, self._policy = engine, prompt, settings, policy
        self._total, self._progress = total, progress
        self._finished = total - sum(len(shard.problems) for shard in shards)
        self._totals = Totals()
        self._open: dict[Hashable, _Opened] = {}

    def search(self, shards: Sequence[Shard], clock: RunnerClock | None) -> None:
        """Search these shards. The next one is opened when there is room for its first tree: so memory holds the
        forests that are being searched and no others."""
        runner: Runner[None] = Runner(self._engine, self._settings.schedule, alive=self._settings.alive, clock=clock)
        waiting = deque(shards)
        try:
            while waiting or runner.busy:
                while waiting and runner.has_room:
                    self._admit(runner, waiting.popleft())
                for ended in runner.step():
                    self._finish(ended.key)
                self._report()
        except BaseException as error:
            for opened in self._open.values():  # the journals stay, for the next attempt
                opened.journal.close()
            if isinstance(error, EngineDiedError):
                raise EngineDiedError(
                    f"{error}; finished shards and journals are kept; fix the engine and give the same command again"
                ) from error
            raise
        finally:
            runner.close()

    def _admit(self, runner: Runner[None], shard: Shard) -> None:
        state = begin(shard.problems, self._engine, self._prompt, self._settings, "train")
        owner = {**self._owner(shard), "tokenizer": state.forest.tokenizer}
        journal = Journal(_journal(shard), owner, keep=self._settings.resume == "journal")
        self._open[shard.first] = _Opened(shard, state, journal)
        admit(runner, shard.first, state, journal)

    def _finish(self, key: Hashable) -> None:
        """The shard appears whole, then its journal goes."""
        opened = self._open.pop(key)
        save(opened.state.forest.by_tree(), opened.shard.path, self._owner(opened.shard))
        opened.journal.remove()
        self._finished += len(opened.shard.problems)
        self._totals.tokens += opened.state.totals.tokens
        self._totals.solved += opened.state.totals.solved

    def _owner(self, shard: Shard) -> dict[str, str]:
        return identity(self._settings, self._prompt, shard.problems, "train", self._policy)

    def _report(self) -> None:
        open_totals = [opened.state.totals for opened in self._open.values()]
        done = self._finished + sum(one.simulations for one in open_totals) // self._settings.simulations
        solved = self._totals.solved + sum(one.solved for one in open_totals)
        tokens = self._totals.tokens + sum(one.tokens for one in open_totals)
        self._progress("search", done, self._total, tokens=float(tokens), solved=solved / max(1, self._total))


def _journal(shard: Shard) -> Path:
    return shard.path.with_suffix(".journal")

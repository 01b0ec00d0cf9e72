"""Searches many problems and writes their trees as files, one shard per Parquet file. A killed search can continue.

In: problems, and a function that makes an engine. Out: `shard-0000.parquet` and so on in a folder.

A shard whose file exists is not searched again. It is refused if it belongs to another search. A shard without a file
continues from the journal next to it (journal.py), which holds everything that the engine gave before a kill. The
journal is deleted when the shard is complete. With `resume: shard` the journal is emptied and the shard starts again.

With `schedule: synchronous` the engine is reset before each shard, so that a shard's bytes depend only on its own
problems. With `schedule: asynchronous` the trees of the next shard start while the last trees of a shard still run.
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
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.runner_clock import RunnerClock
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import SearchState, Totals, begin
from mcts_dpo.search.tree_io import made_with, save


@dataclass(frozen=True, slots=True)
class Shard:
    """The problems of one file. first: the index of its first problem among all problems."""

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

    engine:   makes the engine; called only if there is a shard to search.
    policy:   identifies the policy's weights (`policy_fingerprint`). A journal or shard of another policy is refused.
    clock:    the time spent is added to it.
    trusting: True: take finished shards as they are; the caller has checked that they belong to this search.

    Raises InputError if two problems share an id, or if a file in the folder belongs to another search or is in use.
    Raises EngineDiedError if the engine serves no requests any more. No tree fails because of that.
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
    """Divide the problems into shards of `shard_size`, in order. Raises InputError if two problems share an id."""
    require_unique(problems)
    return [
        Shard(Path(folder) / f"shard-{first // shard_size:04d}.parquet", first, problems[first : first + shard_size])
        for first in range(0, len(problems), shard_size)
    ]


def missing_shards(shards: Sequence[Shard]) -> list[Shard]:
    """The shards whose file does not exist. The journals of the other shards are deleted."""
    missing = [shard for shard in shards if not shard.path.exists()]
    for shard in shards:
        if shard not in missing:  # a kill came after the shard was complete and before its journal was deleted
            _journal(shard).unlink(missing_ok=True)
    return missing


def _require_own(shard: Shard, wanted: Mapping[str, str]) -> None:
    """Raise InputError if a finished shard belongs to another search. A shard that names no search is accepted."""
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
    """Search shards whose files do not exist. total: number of problems of the whole search, for `progress`."""
    shards_search = _ShardsSearch(shards, engine, prompt, settings, policy, total, progress)
    if settings.schedule == "synchronous":
        for shard in shards:  # one at a time, so that a shard's bytes depend only on its own problems
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
    """Searches the missing shards. _finished: how many problems of the whole search are in finished shards."""

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
        """Search these shards. The next shard is opened when there is room for its first tree.

        So memory holds only the forests that are being searched.
        """
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
            for opened in self._open.values():  # the next attempt continues from the journals
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
        """Write the complete shard, then delete its journal."""
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

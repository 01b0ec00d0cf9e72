"""A search over many problems as files: one shard of trees per Parquet file, each the unit of resumption.

In: problems and a way to get an engine. Out: `shard-0000.parquet` and so on in a folder. A shard that is there is not
searched again, and refused if it is of another search; of one that is not, everything that the engine gave before the
search was killed is taken from the journal beside it (journal.py), which goes when the shard is whole; unless `resume`
says that it be searched anew. With `schedule: waves` the engine is emptied before each shard, so that a shard's bytes
depend on its own problems alone; with `schedule: events` the trees of the next shard are begun while the last ones of a
shard still run. Knows nothing of rounds or run directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mcts_dpo.engines.base import Engine
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, part_of, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.desk import SearchClock
from mcts_dpo.search.events import run_events
from mcts_dpo.search.journal import Journal, MisfitError, differing, identity
from mcts_dpo.search.lasting import EngineDiedError
from mcts_dpo.search.mcts import report, require_unique
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.simulation import Task, start
from mcts_dpo.search.storage import made_with, save
from mcts_dpo.search.waves import run_waves


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
    clock: SearchClock | None = None,
    trusting: bool = False,
) -> list[Path]:
    """Search all problems, `shard_size` at a time. Returns the shards' paths, in the order of the problems.

    engine: called only when there is a shard to search.
    policy: what tells the policy's weights from others (`policy_fingerprint`); a journal or shard of another is
            refused.
    trusting: finished shards are taken as they are: whose they are has been seen to.

    Raises InputError if two problems share an id, or what is in the folder is of another search or in use, and
    EngineDiedError where the engine serves nothing any more: no tree fails because of it.
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
    clock: SearchClock | None = None,
) -> None:
    """Search these shards, whose files are not there. total: problems of the whole search, for `progress`."""
    owners = {shard.first: identity(settings, prompt, shard.problems, "train", policy) for shard in shards}

    def begin(shard: Shard) -> Task:
        task = start(shard.problems, engine, prompt, settings, "train")
        owner = {**owners[shard.first], "tokenizer": task.forest.tokenizer}
        task.journal = Journal(_journal(shard), owner, keep=settings.resume == "journal")
        return task

    def finish(task: Task, shard: Shard) -> None:
        """The shard appears whole, then its journal goes."""
        save(task.forest, shard.path, owners[shard.first])
        if task.journal:
            task.journal.remove()

    if settings.schedule == "waves":
        _in_waves(shards, begin, finish, total, progress, clock)
    else:
        engine.reset()
        _by_events(shards, begin, finish, total, progress, clock, settings, engine)


def _in_waves(
    missing: Sequence[Shard],
    begin: Callable[[Shard], Task],
    finish: Callable[[Task, Shard], None],
    total: int,
    progress: Progress,
    clock: SearchClock | None,
) -> None:
    for shard in missing:
        share = part_of(progress, before=shard.first, total=total)
        finish(_in_step(partial(begin, shard), clock, partial(_report, share)), shard)


def _in_step(begin: Callable[[], Task], clock: SearchClock | None, told: Callable[[Task], None]) -> Task:
    """The task that `begin` makes, searched in waves. Where its journal tells of another search, what cannot be used is
    set aside and the task is begun anew: with less of a journal each time."""
    while True:
        task = begin()
        task.engine.reset()
        with _held([task].copy):
            try:
                run_waves(task, clock, told)
                return task
            except MisfitError as error:
                assert task.journal is not None
                task.journal.set_aside_from(error.entry, str(error))
                task.journal.close()


def _report(progress: Progress, task: Task) -> None:
    report(task, progress)


@contextmanager
def _held(tasks: Callable[[], Iterable[Task]]) -> Iterator[None]:
    """Let go of the journals of `tasks` if the search does not end well: they stay, for the next attempt."""
    try:
        yield
    except BaseException as error:
        for task in tasks():
            if task.journal:
                task.journal.close()
        if isinstance(error, EngineDiedError):
            raise EngineDiedError(
                f"{error}; finished shards and journals are kept; mend the engine and give the same command again"
            ) from error
        raise


def _by_events(
    missing: Sequence[Shard],
    begin: Callable[[Shard], Task],
    finish: Callable[[Task, Shard], None],
    total: int,
    progress: Progress,
    clock: SearchClock | None,
    settings: SearchSettings,
    engine: Engine,
) -> None:
    opened: dict[int, tuple[Task, Shard]] = {}
    finished = total - sum(len(shard.problems) for shard in missing)
    tokens = solved = 0

    def tasks() -> Iterator[Task]:
        for shard in missing:
            task = begin(shard)
            opened[id(task)] = (task, shard)
            yield task

    def tell(_: Task) -> None:
        tallies = [task.tally for task, _ in opened.values()]
        done = finished + sum(tally.simulations for tally in tallies) // settings.simulations
        right = solved + sum(tally.solved for tally in tallies)
        spent = tokens + sum(tally.tokens for tally in tallies)
        progress("search", done, total, tokens=float(spent), solved=right / max(1, total))

    def done(task: Task) -> None:
        nonlocal finished, tokens, solved
        _, shard = opened.pop(id(task))
        finished += len(shard.problems)
        tokens += task.tally.tokens
        solved += task.tally.solved
        task.forest = task.forest.by_tree()
        finish(task, shard)

    with _held(lambda: [task for task, _ in opened.values()]):
        run_events(tasks(), engine, settings, clock, done=done, told=tell)


def _journal(shard: Shard) -> Path:
    return shard.path.with_suffix(".journal")

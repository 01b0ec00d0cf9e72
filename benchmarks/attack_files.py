"""Journals and shards that are not as they were written: repeated, lost, moved, foreign, cut and flipped records.

    python -m benchmarks.attack_files [--json FILE] [--seconds 120] [--seed 0]

A search is killed half way, a journal of it is changed, and the same search is run again, in both schedules. Then the
finished shards are changed and read. Each attempt runs in a process of its own with a time limit.

Figures: `journals`, `shards` (tried), `wrong_results` (a search that ended otherwise than one that nobody disturbed,
or a changed shard that was read as if it were whole), `hangs` (had to be killed), `crashes` (neither a result nor one
line of refusal), `refused` (one line, which is right).
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import write_json
from mcts_dpo.engines.base import Completion, Request, Sample
from mcts_dpo.engines.coroutine import Call
from mcts_dpo.search import Forest, SearchSettings
from mcts_dpo.search.journal import Journal
from tests.reference.engine import AutomatonEngine
from tests.search.test_journal import JUDGED, MUTATIONS, DyingEngine, Killed, mutated, shards
from tests.search.test_runner import ShuffledEngine

LIMIT = 60.0
"""Seconds that one attempt has; it takes about a tenth of one."""
SEED = 6
forked = multiprocessing.get_context("fork")
RIGHT, WRONG, REFUSED, CRASHED = range(4)


def outcome_of(work: Callable[[], bool], limit: float) -> str:
    """What came of `work`, which says whether its result is right, in a child: "right", "wrong", "refused", "crash" or
    "hang"."""

    def run() -> None:
        logging.disable(logging.CRITICAL)
        try:
            code = RIGHT if work() else WRONG
        except InputError:
            code = REFUSED
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            code = CRASHED
        raise SystemExit(code)

    child = forked.Process(target=run)
    child.start()
    child.join(limit)
    if child.is_alive():
        child.kill()
        child.join()
        return "hang"
    codes = {RIGHT: "right", WRONG: "wrong", REFUSED: "refused"}
    return codes.get(child.exitcode if child.exitcode is not None else CRASHED, "crash")


def changed(data: bytes, foreign: bytes, rng: random.Random) -> bytes:
    """A journal to which something has happened; see `mutated`. Noise in the middle, too."""
    how = rng.choice([*MUTATIONS, "noise", "twice"])
    if how == "noise":
        place = rng.randrange(len(data))
        return data[:place] + rng.randbytes(rng.randrange(1, 60)) + data[place + rng.randrange(60) :]
    if how == "twice":
        return mutated(mutated(data, foreign, "duplicate", rng), foreign, "swap", rng)
    return mutated(data, foreign, how, rng)


def killed_search(folder: Path, settings: SearchSettings) -> tuple[list[Forest], bytes]:
    """What the undisturbed search finds; and a journal of another search. The killed one is in `folder`/killed."""
    whole = shards(AutomatonEngine(SEED), folder / "whole", settings)
    with suppress(Killed):
        shards(DyingEngine(0, SEED, 200), folder / "killed", settings)
    other = Journal(folder / "other", {})
    other.record(0, 0, Request(0, (4,)), Completion(0, samples=(Sample((4,), "a", (-1.0,), "end"),)))
    other.record(0, 1, Call(len, ["b"]), [[1, "1", True]])
    other.close()
    return whole, (folder / "other").read_bytes()


def on_journals(folder: Path, settings: SearchSettings, rng: random.Random, until: float) -> dict[str, int]:
    """Changed journals until so late, one after the other."""
    whole, foreign = killed_search(folder, settings)
    found: dict[str, int] = {}
    while time.monotonic() < until:
        again = folder / "again"
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(folder / "killed", again)
        for path in again.glob("*.journal"):
            path.write_bytes(changed(path.read_bytes(), foreign, rng))
        order = rng.randrange(1000)
        ended = outcome_of(lambda: shards(ShuffledEngine(order, SEED), again, settings) == whole, LIMIT)  # noqa: B023
        found[ended] = found.get(ended, 0) + 1
    return found


def on_shards(folder: Path, settings: SearchSettings, rng: random.Random, until: float) -> dict[str, int]:
    """Changed shards, read."""
    shards(AutomatonEngine(SEED), folder / "finished", settings)
    path = min((folder / "finished").glob("*.parquet"))
    whole, data = Forest.load(path), path.read_bytes()
    found: dict[str, int] = {}
    while time.monotonic() < until:
        place = rng.randrange(len(data))
        how = rng.choice(["flip", "cut", "noise"])
        bad = bytes([data[place] ^ 1 << rng.randrange(8)]) if how == "flip" else rng.randbytes(rng.randrange(40))
        path.write_bytes(data[:place] + bad + (b"" if how == "cut" else data[place + len(bad) :]))
        ended = outcome_of(lambda: Forest.load(path) == whole, LIMIT)
        found[ended] = found.get(ended, 0) + 1
    return found


def attack(seconds: float = 120.0, seed: int = 0) -> dict[str, float]:
    """Journals of both schedules and shards, a third of the time each; see the module."""
    rng, begun, third = random.Random(seed), time.monotonic(), seconds / 3
    total: dict[str, float] = {"journals": 0, "shards": 0}
    with tempfile.TemporaryDirectory(prefix="attack-files-") as scratch:
        for place, schedule in enumerate(("synchronous", "asynchronous")):
            settings = JUDGED.model_copy(update={"schedule": schedule, "parallel_leaves": 1, "alive": 9})
            folder = Path(scratch) / schedule
            folder.mkdir()
            _add(total, "journals", on_journals(folder, settings, rng, begun + third * (place + 1)))
        _add(total, "shards", on_shards(Path(scratch), JUDGED, rng, begun + seconds))
    names = {"wrong": "wrong_results", "hang": "hangs", "crash": "crashes", "refused": "refused"}
    return {name: total[name] for name in ("journals", "shards")} | {
        shown: total.get(name, 0.0) for name, shown in names.items()
    }


def _add(total: dict[str, float], what: str, found: dict[str, int]) -> None:
    total[what] += sum(found.values())
    for name, count in found.items():
        total[name] = total.get(name, 0.0) + count


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = attack(options.seconds, options.seed)
    print(json.dumps(figures, indent=2))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()

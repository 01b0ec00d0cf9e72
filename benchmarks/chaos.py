"""A run that is killed again and again must end as if nothing had happened.

    python -m benchmarks.chaos --kills 30 --json FILE [--seed 0] [--schedule synchronous|asynchronous] [--out DIR]

The built-in world in two small rounds: once undisturbed, then killed with SIGKILL and started again by the same
command (`mcts-dpo run`) until all kills are spent; a run that ends before is followed by another from the beginning. A
kill aims at a moment drawn from the seed: of the next stages (search, pairs, train, evaluate of each round) the one
that was hit least so far, and a share of the time that the undisturbed run took for it, counted from when this attempt
came to it. After every kill a
watcher reads all files under final names: each must be, to the byte, what the undisturbed run has there
(`metrics.jsonl` its beginning). Scratch folders, journals and the folder of an unfinished training are no final names.

Prints and writes `kills`, `identical` (1: every run ended with the bytes of the undisturbed one and nothing else),
`half_files` (found over all kills), `seconds`, `stages` (how many kills hit each stage; 0 where none did) and `met`
(how many met what: a file being written, a shard's journal, a training's checkpoint, files of a stage without its
manifest; one kill may meet several of these, or none). Clock times (`timings.jsonl`, TensorBoard's files) and the
command's figures of a finished run are not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mcts_dpo.cli.app import main as command
from mcts_dpo.common.files import write_json
from mcts_dpo.common.settings import changed, dump_settings
from mcts_dpo.data import save_problems
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.toy.demo import demo_config
from mcts_dpo.toy.policy import WarmStartSettings, warm_start
from mcts_dpo.toy.world import make_problems

# Attempts are forked from a process that has imported everything: what is killed is the run, not the interpreter's
# start. Nothing of an attempt but its files reaches the next.
children = multiprocessing.get_context("forkserver")
children.set_forkserver_preload(["mcts_dpo.cli.app", "mcts_dpo.pipeline.rounds", "mcts_dpo.report", "transformers"])

AHEAD = 3
"""Stages among which the next kill is drawn: the first of those that are not finished and were not aimed at."""
AFTER = "after the last"
MET = ("a file being written", "a shard's journal", "a training's checkpoint", "files of a stage without its manifest")
"""What a kill may meet; see the module."""
FIGURES = {"accuracy.png", "training.png", "report.html"}
CLOCKED = {"timings.jsonl", ".lock"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the undisturbed run: its place ("round-000"), its name, and how long it took."""

    place: str
    name: str
    seconds: float

    @property
    def label(self) -> str:
        """As "round-000/search"."""
        return f"{self.place}/{self.name}"

    def done(self, directory: Path) -> bool:
        """Whether its manifest is there."""
        return (directory / self.place / "stages" / f"{self.name}.json").exists()


def small_run(folder: Path, schedule: Literal["synchronous", "asynchronous"] = "synchronous") -> RunConfig:
    """A half-taught policy and problems in `folder`, and a run of two rounds over them, searched in this schedule."""
    warm_start(folder / "start", seed=0, settings=WarmStartSettings(demonstrations=1500, steps=500, events=(1,)))
    test = make_problems(24, seed=1, events=(1,))
    train = make_problems(40, seed=2, events=(1,), exclude={problem.question for problem in test})
    save_problems(folder / "train.jsonl", train)
    save_problems(folder / "test.jsonl", test)
    demo = demo_config(folder / "start", folder, seed=0)
    return demo.model_copy(
        update={
            "rounds": 2,
            "problems_per_round": 20,
            "shard_size": 8,
            "train": demo.train.model_copy(update={"limit": 40}),
            "search": demo.search.model_copy(update={"simulations": 4, "schedule": schedule}),
            "preferences": demo.preferences.model_copy(update={"min_gap": 0.2}),
            "training": changed(demo.training, {"checkpoint.updates": 2}),
        }
    )


def _attempt(config: str, directory: str) -> None:
    """`mcts-dpo run`, in a process group of its own, silently."""
    os.setsid()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.argv = ["mcts-dpo", "run", "--config", config, "--out", directory]
    command()


def start(config: Path, directory: Path) -> Any:
    """An attempt, under way."""
    process = children.Process(target=_attempt, args=(str(config), str(directory)))
    process.start()
    return process


def stages_of(directory: Path) -> list[Stage]:
    """The stages of a finished run, in order."""
    lines = [json.loads(line) for line in (directory / "timings.jsonl").read_text().splitlines()]
    return [Stage(line["place"], line["stage"], line["seconds"]) for line in lines]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a run that is compared, under its relative path."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.name not in CLOCKED | FIGURES and path.parent.name != "tensorboard"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in kept}


def under_final_names(directory: Path) -> dict[str, bytes]:
    """Of these, the files that a reader of a run under way would take for finished."""
    return {
        name: data
        for name, data in contents(directory).items()
        if not name.endswith(".journal")
        and not any(part.startswith(".") or part == "unfinished" for part in Path(name).parts)
    }


def half_files(directory: Path, expected: dict[str, bytes]) -> list[str]:
    """Files under final names that are not what the undisturbed run has there, and directories that are not whole."""
    found = under_final_names(directory)
    wrong = [
        name
        for name, data in found.items()
        if data != expected.get(name) and not (name == "metrics.jsonl" and _begins(expected[name], data))
    ]
    for place in {Path(name).parent for name in found if Path(name).parent.name == "policy"}:
        whole = {name for name in expected if Path(name).is_relative_to(place)}
        wrong += sorted(whole - found.keys())
    return wrong


def _begins(whole: bytes, part: bytes) -> bool:
    """Whether `part` is the first lines of `whole`."""
    return whole.startswith(part) and part.endswith(b"\n")


def chaos(config: RunConfig, folder: Path, *, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill runs of `config` `kills` times; everything is left in `folder`. See the module."""
    began = time.monotonic()
    path = folder / "run.yaml"
    path.write_text(dump_settings(config), encoding="utf-8")
    first = start(path, folder / "undisturbed")
    first.join()
    if first.exitcode != 0:
        raise RuntimeError(f"the undisturbed run ended with {first.exitcode}; see mcts-dpo run --config {path}")
    expected = contents(folder / "undisturbed")
    stages = stages_of(folder / "undisturbed")
    draw = random.Random(seed)
    hits: Counter[str] = Counter()
    met: Counter[str] = Counter()
    half: list[str] = []
    different: list[str] = []
    runs = 0
    while sum(hits.values()) < kills:
        directory = folder / f"run-{runs:03d}"
        runs += 1
        aimed: set[int] = set()
        while True:
            before = _claimed(directory)
            process = start(path, directory)
            if sum(hits.values()) < kills and _kill_somewhere(process, directory, before, stages, aimed, hits, draw):
                hits[_under_way(directory, stages)] += 1
                met.update(_met(directory, stages))
                half += [f"{directory.name}/{name}" for name in half_files(directory, expected)]
                continue
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"{directory}: the same command ended with {process.exitcode}")
            break
        mine = contents(directory)
        different += sorted(name for name in mine.keys() | expected.keys() if mine.get(name) != expected.get(name))
    return {
        "kills": sum(hits.values()),
        "identical": int(not different),
        "half_files": len(half),
        "seconds": round(time.monotonic() - began, 1),
        "runs": runs,
        "seed": seed,
        "schedule": config.search.schedule,
        "stages": {stage.label: hits[stage.label] for stage in stages} | {AFTER: hits[AFTER]},
        "met": {what: met[what] for what in MET},
        "different": different,
        "half": half,
    }


def _claimed(directory: Path) -> int:
    """When an attempt last began its work: it writes this file anew then, before any stage. 0 if none has."""
    path = directory / "environment.json"
    return path.stat().st_mtime_ns if path.exists() else 0


def _kill_somewhere(
    process: Any,
    directory: Path,
    before: int,
    stages: list[Stage],
    aimed: set[int],
    hits: Counter[str],
    draw: random.Random,
) -> bool:
    """Kill at a drawn moment of one of the next stages. False if the run ended before it came.

    aimed: the stages of this run that were aimed at; each is but once, so that kills meet all stages and runs end.
    """
    left = [place for place, stage in enumerate(stages) if place not in aimed and not stage.done(directory)]
    if not left:
        return False
    fewest = min(hits[stages[place].label] for place in left[:AHEAD])
    place = draw.choice([place for place in left[:AHEAD] if hits[stages[place].label] == fewest])
    share = draw.random()
    aimed.add(place)
    while _claimed(directory) == before or (place > 0 and not stages[place - 1].done(directory)):
        if not process.is_alive():
            return False
        time.sleep(0.001)
    process.join(share * stages[place].seconds)
    if not process.is_alive():
        return False
    with contextlib.suppress(ProcessLookupError):
        # Before it has a group of its own it is killed alone.
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    return True


def _under_way(directory: Path, stages: list[Stage]) -> str:
    """The stage that a kill has hit."""
    stage = next((stage for stage in stages if not stage.done(directory)), None)
    return stage.label if stage else AFTER


def _met(directory: Path, stages: list[Stage]) -> list[str]:
    """Which of `MET` a kill has met."""
    stage = next((stage for stage in stages if not stage.done(directory)), None)
    made = {"search": "trees/*.parquet", "pairs": "*.parquet", "train": "policy/*", "evaluate": "metrics.json"}
    found = (
        any(directory.rglob(".*.partial-*")),
        any(directory.rglob("*.journal")),
        any(directory.rglob("unfinished/checkpoint.safetensors")),
        stage is not None and any((directory / stage.place).glob(made[stage.name])),
    )
    return [what for what, so in zip(MET, found, strict=True) if so]


def main() -> None:
    """Prepare, kill, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how often")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--schedule", choices=["synchronous", "asynchronous"], default="synchronous", help="of the search"
    )
    parser.add_argument("--out", type=Path, help="folder for the runs (default: a temporary one, removed at the end)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        results = chaos(small_run(folder, arguments.schedule), folder, kills=arguments.kills, seed=arguments.seed)
    print(json.dumps(results, indent=2))
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()

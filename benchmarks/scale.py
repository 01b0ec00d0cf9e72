"""Seconds and memory of the commands that read trees, at many trees: whether time is linear and memory constant.

    python -m benchmarks.scale --json FILE [--trees 100000] [--searched 1000] [--out DIR]

Makes a run of so many synthetic trees of 60 nodes (they look like those of a search; nothing is searched), and one of a
tenth of them. Then each command runs over either in a process of its own: `pairs`, `report`, `tree` (the list of all
trees), `rejudge`. Interrupted and started again with the same FILE and DIR, it continues:
tree files that are there are not made again, and commands that are in FILE are not run again.

Prints and writes, by command and number of trees: `seconds_per_10000` (by the clock), `cpu_seconds_per_10000`,
`peak_mib` (of the process); and `mib_per_10000`, by how much the peak grows for every 10,000 trees from the smaller run
to the larger. Then a small policy searches `--searched` problems of the built-in world, with a self-evaluation of every
step, and the trees are judged again with the same settings: `searched` holds the seconds of both, and whether every
value is the same bit by bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mcts_dpo.common.files import read_json, write_json
from mcts_dpo.common.settings import dump_settings
from mcts_dpo.data import ProblemSettings, save_problems
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.search import FINISHES, Forest, SearchSettings
from mcts_dpo.toy.demo import demo_config
from mcts_dpo.toy.policy import WarmStartSettings, warm_start
from mcts_dpo.toy.world import make_problems

NODES = 60
SHARD = 100
"""Trees in a file."""
WORDS = ["so", "we", "add", "the", "two", "numbers", "then", "take", "away", "what", "was", "left", "over", "and", "by"]
END = FINISHES.index("end")


def synthetic_forest(number: int, trees: int = SHARD, nodes: int = NODES) -> Forest:
    """The forest of shard `number`, the same for the same numbers."""
    rng = np.random.default_rng(number)
    forest = Forest({"search": {"simulations": nodes // 4}}, "0" * 64)
    for tree in range(trees):
        name = f"problem-{number * trees + tree}"
        prompt = rng.integers(5, 30_000, 40).tolist()
        forest.add_tree(name, prompt, f"Question {name}: how many of them are there? " + " ".join(WORDS))
    for tree in range(trees):
        _grow(forest, tree, nodes, rng)
    return forest


def _grow(forest: Forest, tree: int, nodes: int, rng: np.random.Generator) -> None:
    """Steps below a root, three to a parent, until the tree has so many nodes; those without children end right or
    wrong."""
    root = forest.trees[tree].root
    mine = [root]
    while len(mine) < nodes:
        parent = mine[(len(mine) - 1) // 3]
        tokens = rng.integers(5, 30_000, int(rng.integers(8, 17))).tolist()
        # The last third of the nodes, in order of growth, stays without children.
        ends = 3 * len(mine) + 1 >= nodes
        text = " ".join(rng.choice(WORDS, len(tokens))) + f" {len(mine)}\n"
        mine.append(
            forest.add_child(parent, tokens, rng.uniform(-2, 0, len(tokens)).tolist(), text, END if ends else 0)
        )
    steps = np.array(mine[1:])
    forest.visits[mine], forest.samples[steps] = rng.integers(1, 20, len(mine)), rng.integers(1, 4, len(steps))
    forest.q[steps], forest.v[mine] = rng.uniform(-1, 1, len(steps)), rng.uniform(-1, 1, len(mine))
    forest.prior[steps] = forest.mass[steps] = 1 / 3
    ends = steps[forest.terminal[steps]]
    forest.outcome[ends] = rng.choice([-1, 1], len(ends))
    forest.reward[ends] = forest.outcome[ends]
    for node in ends.tolist():
        forest.answers[node] = str(int(rng.integers(100)))
    info = forest.trees[tree]
    info.status, info.simulations, info.generated = "simulations", nodes // 4, int(forest.length[steps].sum())


def make_run(folder: Path, trees: int, shards_from: Path | None = None) -> Path:
    """A run directory whose only round holds so many trees; files that another run has already are linked."""
    shards = folder / "round-000" / "trees"
    shards.mkdir(parents=True, exist_ok=True)
    for number in range(-(-trees // SHARD)):
        path = shards / f"shard-{number:04d}.parquet"
        if path.exists():
            continue
        if shards_from is not None:
            os.link(shards_from / "round-000" / "trees" / path.name, path)
        else:
            synthetic_forest(number, min(SHARD, trees - number * SHARD)).save(path)
    config = RunConfig(model="none", train=ProblemSettings(source="none"), test=ProblemSettings(source="none"))
    (folder / "config.yaml").write_text(dump_settings(config), encoding="utf-8")
    accuracy = {"value": 0.5, "low": 0.4, "high": 0.6}
    search = {"first_sample_accuracy": 0.5, "sampled_tokens": trees * NODES * 12, "failed": 0}
    line = {"round": 0, "test": {"greedy": accuracy}, "search": search, "accepted": True, "policy": "none"}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    return folder


def commands(run: Path) -> dict[str, list[str]]:
    """What is measured, by name, in order."""
    trees = str(run / "round-000" / "trees")
    return {
        "pairs": ["pairs", trees, "-o", str(run / "round-000")],
        "report": ["report", str(run)],
        "tree": ["tree", str(run)],
        "rejudge": ["rejudge", trees, "-o", str(run / "rejudged")],
    }


def measure(arguments: list[str], trees: int) -> dict[str, float]:
    """Run a command of ours in a process of its own. Raises RuntimeError, with what it said, if it fails."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "mcts_dpo", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: {said.read().decode(errors='replace')[-2000:]}")
    per = trees / 10_000
    return {
        "seconds_per_10000": round((time.monotonic() - began) / per, 2),
        "cpu_seconds_per_10000": round((usage.ru_utime + usage.ru_stime) / per, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def scale(folder: Path, trees: int, results: dict[str, Any], save: Any = lambda: None) -> dict[str, Any]:
    """Measure all commands over `trees` trees and a tenth of them. results: those that are there already; `save` is
    called after each more."""
    small = max(1, trees // 10)
    results.setdefault("trees", trees)
    results.setdefault("nodes", NODES)
    if (results["trees"], results["nodes"]) != (trees, NODES):
        raise SystemExit(f"the results are of {results['trees']} trees; give another file")
    large_run = make_run(folder / "large", trees)
    for run, count in ((make_run(folder / "small", small, large_run), small), (large_run, trees)):
        for name, arguments in commands(run).items():
            done = results.setdefault(name, {})
            if str(count) not in done:
                done[str(count)] = measure(arguments, count)
                save()
    for name in commands(large_run):
        grown = results[name][str(trees)]["peak_mib"] - results[name][str(small)]["peak_mib"]
        results[name]["mib_per_10000"] = round(grown / ((trees - small) / 10_000), 2) if trees > small else 0.0
    results["page_mib"] = round((large_run / "report.html").stat().st_size / 2**20, 1)
    save()
    return results


def searched(folder: Path, trees: int) -> dict[str, Any]:
    """Search so many problems of the built-in world and judge the trees again, both by the command line."""
    policy, problems = folder / "policy", folder / "problems.jsonl"
    if not policy.exists():
        warm_start(policy, seed=0, settings=WarmStartSettings(demonstrations=1500, steps=500, events=(1,)))
    save_problems(problems, make_problems(trees, seed=2))
    config = folder / "search.yaml"
    demo = demo_config(policy, folder, seed=0)
    rewards = ["outcome", {"kind": "self_evaluation", "weight": 0.5, "at": "all"}]
    search = SearchSettings.model_validate(demo.search.model_dump() | {"rewards": rewards, "max_tokens": 64})
    config.write_text(dump_settings(demo.model_copy(update={"search": search})), encoding="utf-8")
    grow = ["search", "-c", str(config), "-p", str(problems), "-o", str(folder / "trees"), "--shard-size", str(SHARD)]
    search_cost = measure(grow, trees)
    rejudge_cost = measure(["rejudge", str(folder / "trees"), "-o", str(folder / "rejudged")], trees)
    pairs = [(file, folder / "rejudged" / file.name) for file in sorted((folder / "trees").glob("*.parquet"))]
    forests = [(Forest.load(old), Forest.load(new)) for old, new in pairs]
    return {
        "trees": trees,
        "nodes": sum(len(old) for old, _ in forests),
        "identical": all(old == new for old, new in forests),
        "search": search_cost,
        "rejudge": rejudge_cost,
        "cpu_share": round(rejudge_cost["cpu_seconds_per_10000"] / search_cost["cpu_seconds_per_10000"], 4),
    }


def main() -> None:
    """Make the trees, run the commands, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=100_000, help="how many")
    parser.add_argument("--searched", type=int, default=1000, help="how many are searched and judged again")
    parser.add_argument("--json", type=Path, help="write the results here; what is in it is not measured again")
    parser.add_argument("--out", type=Path, help="folder for the trees (default: a temporary one, removed at the end)")
    arguments = parser.parse_args()
    results = read_json(arguments.json) if arguments.json and arguments.json.exists() else {}

    def save() -> None:
        if arguments.json:
            write_json(arguments.json, results)

    with contextlib.ExitStack() as stack:
        folder = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
        scale(folder, arguments.trees, results, save)
        if results.get("searched", {}).get("trees") != arguments.searched:
            results["searched"] = searched(folder, arguments.searched)
            save()
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

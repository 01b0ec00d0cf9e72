"""Freezes what the first edition computes, as the golden files of `test_golden.py`. Run it on that edition's code only:

    git worktree add --detach OLD f7c3472
    cd OLD && PYTHONPATH=. python HERE/tests/golden/make.py HERE/tests/golden

Trees come from the automaton of `tests/reference/engine.py`, trainings from a tiny Llama with weights drawn by NumPy.
Settings are written in the first edition's words. Numbers are kept to ten digits: NumPy's `exp` and `log` differ in the
last digits between machines.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 10
BASE = {"simulations": 10, "children": 3, "max_tokens": 24, "max_step_tokens": 8, "max_depth": 5, "temperature": 1.2}
JUDGED = {"weight": 0.5, "at": "all", "hint": True}
SEARCHES: dict[str, dict[str, Any]] = {
    "rollout, puct": {},
    "step, uct": {"expand": "step", "selection": "uct", "c_puct": 0.7},
    "rollout, gumbel": {"selection": "gumbel", "gumbel": {"considered": 3}, "simulations": 12},
    "step, parallel leaves": {"expand": "step", "parallel_leaves": 3, "simulations": 13},
    "rollout, judged everywhere": {"self_evaluation": JUDGED, "gamma": 0.9, "backup": "mean"},
    "step, judged everywhere": {"expand": "step", "self_evaluation": JUDGED, "gamma": 0.9},
    "step, merged siblings": {"expand": "step", "children": 6, "temperature": 0.6, "prior": "raw"},
    "step, advance": {"expand": "step", "advance": "step", "stop": "decided", "simulations": 4},
    "rollout, tree by tree": {"schedule": "events", "top_p": 0.9, "seed": 3},
}
SOLVES: dict[str, dict[str, Any]] = {
    "solve, step, budget": {"expand": "step", "budget": 120, "simulations": 40, "self_evaluation": {"weight": 1.0}},
    "solve, rollout, budget": {"budget": 150, "simulations": 40, "self_evaluation": {"weight": 1.0, "at": "all"}},
}
PREFERENCES: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"select": "all", "min_gap": 0.1, "shrinkage": 0.5, "min_certainty": 0.55, "weight": "samples"},
    "best_path": {"select": "best_path", "min_gap": 0.2, "max_pairs": 3, "first": "margin"},
}
STRATEGIES = ("greedy", "majority", "best-of-n", "weighted", "beam", "dvts", "mcts")
BUDGETS = (60, 150)
SAVED = "step, judged everywhere"
ENGINE_SEED = 6
OBJECTIVES: dict[str, dict[str, Any]] = {
    "step_dpo": {},
    "step_dpo, padded": {"objective": "step_dpo", "packing": False},
    "step_dpo, lora": {"objective": "step_dpo", "lora": {"rank": 3}, "weight_decay": 0.1},
    "ipo": {},
    "odpo": {},
    "simpo": {},
    "orpo": {},
    "rft": {},
    "kto": {},
    "lipo": {},
    "sibling_distillation": {},
    "tree_policy_gradient": {},
}
TRAINING = {"lr": 1e-3, "batch_size": 3, "epochs": 2, "max_batch_tokens": 60, "trackers": [], "threads": 1}


def engine_of(module: Any) -> Any:
    """The automaton of `tests/reference/engine.py`, changed: a final answer is one digit on its own line and ends
    the solution. Other answers are read in another way now than then, which has nothing to do with searching."""
    engine, piece = module.AutomatonEngine(ENGINE_SEED), module.PIECES.index
    digits, answered = [piece(digit) for digit in "123"], len(engine._next) - 1
    engine._next[engine._next == answered] = 0
    engine._after[:, piece("####")] -= 40.0
    engine._after[piece("\n"), piece("####")] += 40.2
    engine._next[:, piece("####")] = engine._next[answered] = answered
    engine._logits[answered] = -40.0
    engine._logits[answered, [module.EOS, piece("\n")]] = 0.0
    engine._after[piece("####"), digits] = 80.0
    return engine


def forest_columns(forest: Any, node_fields: Any) -> list[dict[str, Any]]:
    """A forest tree by tree: every array, with node ids counted from the tree's root."""
    found = []
    for tree, info in enumerate(forest.trees):
        nodes = forest.nodes(tree).tolist()
        place = {node: index for index, node in enumerate(nodes)} | {-1: -1}
        columns: dict[str, Any] = {}
        for name, *_ in node_fields:
            if name in ("parent", "first_child", "last_child", "next_sibling"):
                columns[name] = [place[int(getattr(forest, name)[node])] for node in nodes]
            elif name not in ("tree", "offset"):
                columns[name] = getattr(forest, name)[nodes].tolist()
        columns["texts"] = [forest.texts[node] for node in nodes]
        columns["answers"] = [forest.answers[node] for node in nodes]
        columns["tokens"] = [forest.step_tokens(node) for node in nodes]
        columns["info"] = {
            name: getattr(info, name)
            for name in ("problem_id", "prompt_tokens", "mode", "status", "generated", "simulations", "unanswered")
        } | {"moves": [place[node] for node in info.moves]}
        found.append(columns)
    return found


def deterministic(policy: Path) -> Path:
    """The policy with weights that are the same on every machine."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(1)
    weights = load_file(policy / "model.safetensors")
    for name in sorted(weights):
        drawn = rng.standard_normal(weights[name].shape).astype(np.float32)
        weights[name] = np.ones_like(drawn) if "norm" in name else drawn * np.float32(0.4)
    save_file(weights, policy / "model.safetensors", metadata={"format": "pt"})
    return policy


def table_for(world: Any, objective: str, digest: str) -> Any:
    """The table that an objective reads, over the vocabulary of `tests/training/world.py`."""
    rows = world.random_rows(9, seed=4)
    if objective == "rft":
        return world.solutions_of([([*prompt, *prefix], chosen) for prompt, prefix, chosen, _ in rows], digest)
    if objective in ("kto", "lipo", "sibling_distillation", "tree_policy_gradient"):
        lists = [
            (a[0], a[1], [step for n, step in enumerate((a[2], a[3], b[2])) if step not in (a[2], a[3])[:n]])
            for a, b in zip(rows, [*rows[1:], rows[0]], strict=True)
        ]
        return world.siblings_of(lists, digest)
    weights = [1.0 + (row % 3) / 4 for row in range(len(rows))]
    return world.pairs_of(rows, digest, smoothing=[0.1 * (row % 4) for row in range(len(rows))], weight=weights)


def log_figures(log: Path) -> list[dict[str, float]]:
    """The figures of every update."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def rounded(value: Any) -> Any:
    """Floats to so many digits, everywhere."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def searched() -> dict[str, Any]:
    """Every search of SEARCHES and SOLVES, with the tables drawn from its trees."""
    from mcts_dpo.preferences import PreferenceSettings, extract_pairs, extract_siblings, extract_solutions
    from mcts_dpo.search import SearchSettings, search
    from mcts_dpo.search.forest import NODE_FIELDS
    from tests.reference import engine
    from tests.search.support import PROBLEMS, PROMPT

    found: dict[str, Any] = {}
    for name, changes in {**SEARCHES, **SOLVES}.items():
        given = {**BASE, **changes}
        mode = "solve" if name in SOLVES else "train"
        settings = SearchSettings.model_validate(given)
        forest = search(PROBLEMS, engine_of(engine), prompt=PROMPT, settings=settings, mode=mode)
        case: dict[str, Any] = {"settings": given, "mode": mode, "trees": forest_columns(forest, NODE_FIELDS)}
        for label, choice in PREFERENCES.items() if mode == "train" else ():
            preferences = PreferenceSettings.model_validate(choice)
            case[f"tables, {label}"] = {
                "settings": choice,
                "pairs": extract_pairs([forest], preferences).table.to_pydict(),
                "siblings": extract_siblings([forest], preferences).table.to_pydict(),
                "solutions": extract_solutions([forest], preferences).table.to_pydict(),
            }
        found[name] = case
    return found


def solved() -> dict[str, Any]:
    """Every strategy at every budget."""
    from mcts_dpo.search import SearchSettings
    from mcts_dpo.search.strategies import solve
    from tests.reference import engine
    from tests.search.support import PROBLEMS, PROMPT

    wanted = [(strategy, budget) for strategy in STRATEGIES for budget in BUDGETS]
    settings = SearchSettings.model_validate(BASE)
    attempts = solve(PROBLEMS, engine_of(engine), wanted, prompt=PROMPT, search=settings)
    names = ("answer", "text", "tokens", "solutions", "error")
    return {
        f"{strategy} {budget}": [{name: getattr(one, name) for name in names} for one in found]
        for (strategy, budget), found in attempts.items()
    }


def trained() -> dict[str, Any]:
    """The log of a short training of every objective in OBJECTIVES."""
    from mcts_dpo.training import TrainingSettings, train
    from tests.training import world

    found = {}
    for name, changes in OBJECTIVES.items():
        given = {**TRAINING, "objective": name, **changes}
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            policy = deterministic(world.tiny_policy(folder / "policy"))
            data = table_for(world, given["objective"], world.digest_of(policy))
            train(policy, data, folder / "out", TrainingSettings.model_validate(given), log=folder / "log.jsonl")
            found[name] = {"settings": given, "log": log_figures(folder / "log.jsonl")}
    return found


def write_files(folder: Path) -> None:
    """Small files in the first edition's formats for `tests/pipeline/test_old_files.py`: trees, tables, a run directory
    (one round of a tiny policy, without the policy)."""
    from mcts_dpo.preferences import PreferenceSettings, extract_pairs, extract_siblings, extract_solutions
    from mcts_dpo.problems import save_problems
    from mcts_dpo.rounds import run
    from mcts_dpo.search import SearchSettings, search
    from mcts_dpo.toy.demo import demo_config
    from mcts_dpo.toy.policy import WarmStartSettings, warm_start
    from mcts_dpo.toy.world import make_problems
    from tests.reference import engine
    from tests.search.support import PROBLEMS, PROMPT

    folder.mkdir(exist_ok=True)
    settings = SearchSettings.model_validate({**BASE, **SEARCHES[SAVED]})
    forest = search(PROBLEMS, engine_of(engine), prompt=PROMPT, settings=settings)
    forest.save(folder / "trees.parquet")
    for extract in (extract_pairs, extract_siblings, extract_solutions):
        table = extract([forest], PreferenceSettings())
        table.save(folder / f"{table.what}.parquet")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # the files name their places by relative paths
        teaching = {"demonstrations": 200, "steps": 60, "events": (1,), "development": 8}
        size = {"width": 16, "layers": 1, "heads": 1, "feed_forward": 16}
        warm_start(Path("start"), seed=0, settings=WarmStartSettings.model_validate({**teaching, **size}))
        for seed, name in enumerate(("train", "test")):
            save_problems(Path(f"{name}.jsonl"), make_problems(3, seed=seed, events=(1,)))
        demo = demo_config(Path("start"), Path(), seed=0, rounds=1, problems_per_round=3)
        small = {"simulations": 2, "children": 3, "max_tokens": 40, "max_step_tokens": 40}
        config = demo.model_copy(update={"search": demo.search.model_copy(update=small), "shard_size": 3})
        run(config, Path("run"))
        with tarfile.open(folder / "run.tar.xz", "w:xz") as archive:
            archive.add("run")


def main(folder: Path) -> None:
    """Write the golden files."""
    for name, make in (("searches", searched), ("strategies", solved), ("trainings", trained)):
        text = json.dumps(rounded(make()), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    write_files(folder / "first-edition")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

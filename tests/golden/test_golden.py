"""What the first edition computed is what this one computes: trees, tables, strategies' answers and training logs.

The files are made by `make.py` on the first edition's code. What has another name or place now is translated here; what
differs on purpose is named here and in CHANGELOG.md:
- rewards add up along a path only with `accumulate: sum`, which these searches set;
- a strategy judges every step and draws doubted ones again (`allocation: auto`); these draw from every node once and
  judge ends only, as before;
- a strategy without an answer returns the likeliest text (it returned none).
"""

from __future__ import annotations

import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcts_dpo.preferences import PreferenceSettings, extract_pairs, extract_siblings, extract_solutions
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.tree import NODE_FIELDS
from mcts_dpo.solve import solve_problems
from mcts_dpo.training import TrainingSettings, train
from tests.golden import make
from tests.reference import engine
from tests.search.support import PROBLEMS, PROMPT
from tests.training import world

FOLDER = Path(__file__).parent
SCHEDULES = {"waves": "synchronous", "events": "asynchronous"}


@cache
def golden(name: str) -> dict[str, Any]:
    """One of the golden files."""
    found: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return found


def search_settings(old: dict[str, Any]) -> SearchSettings:
    """Settings in the first edition's words, as they are called now."""
    given = {"accumulate": "sum"} | old
    if "schedule" in given:
        given["schedule"] = SCHEDULES[given["schedule"]]
    if "self_evaluation" in given:
        given["rewards"] = ["outcome", {"kind": "self_evaluation", **given.pop("self_evaluation")}]
    return SearchSettings.model_validate(given)


def training_settings(old: dict[str, Any]) -> TrainingSettings:
    """Settings in the first edition's words, as they are called now."""
    given: dict[str, Any] = {"objective": {"kind": old["objective"]}}
    for name, value in old.items():
        part, _, inner = TrainingSettings.moved.get(name, name).rpartition(".")
        if name != "objective":
            (given.setdefault(part, {}) if part else given)[inner] = value
    return TrainingSettings.model_validate(given)


def assert_same(now: Any, then: Any, where: str, tolerance: float = 1e-9) -> None:
    """Equal in every field that there was; floats to `tolerance`, relative and absolute."""
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in now, f"{where}: {name} is gone"
            assert_same(now[name], value, f"{where}: {name}", tolerance)
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for place, value in enumerate(then):
            assert_same(now[place], value, f"{where}[{place}]", tolerance)
    elif isinstance(then, float) and now is not None:
        both_unknown = math.isnan(now) and math.isnan(then)
        assert both_unknown or math.isclose(now, then, rel_tol=tolerance, abs_tol=tolerance), f"{where}: {now} {then}"
    else:
        assert now == then, f"{where}: {now!r} {then!r}"


def tree_columns(forest: Forest) -> list[dict[str, Any]]:
    """A forest tree by tree, in the first edition's columns."""
    found = make.forest_columns(forest, NODE_FIELDS)
    confidence = forest.scores.get("self_evaluation", np.full(len(forest), np.nan))
    for tree, columns in enumerate(found):
        columns["confidence"] = confidence[forest.nodes(tree)].tolist()
    return found


def forest_of(case: dict[str, Any]) -> Forest:
    settings = search_settings(case["settings"])
    return search_problems(PROBLEMS, make.engine_of(engine), prompt=PROMPT, settings=settings, mode=case["mode"])


@pytest.mark.parametrize("name", [*make.SEARCHES, *make.SOLVES])
def test_searches(name: str) -> None:
    case = golden("searches")[name]
    forest = forest_of(case)
    assert_same(tree_columns(forest), case["trees"], name)
    for label in (label for label in case if label.startswith("tables")):
        settings = PreferenceSettings.model_validate(case[label]["settings"])
        for kind, extract in (
            ("pairs", extract_pairs),
            ("siblings", extract_siblings),
            ("solutions", extract_solutions),
        ):
            rows = extract([forest], settings).table.to_pydict()
            # The columns of node ids count in the whole forest, whose order of rows is now tree by tree.
            ids = {"parent", "node", "leaf", "chosen_node", "rejected_node"}
            old = {column: cells for column, cells in case[label][kind].items() if column not in ids}
            then = {column.replace("_observed", "_environment"): cells for column, cells in old.items()}
            assert_same(rows, then, f"{name}, {label}, {kind}")


@pytest.mark.parametrize("strategy", make.STRATEGIES)
def test_strategies(strategy: str) -> None:
    wanted = [(strategy, budget) for budget in make.BUDGETS]
    at_ends = ["outcome", {"kind": "self_evaluation", "at": "terminal"}]
    settings = search_settings({"allocation": "fixed", "rewards": at_ends} | make.BASE)
    found = solve_problems(PROBLEMS, make.engine_of(engine), wanted, prompt=PROMPT, search=settings)
    for (_, budget), solutions in found.items():
        then = golden("strategies")[f"{strategy} {budget}"]
        assert len(solutions) == len(then)
        for solution, old in zip(solutions, then, strict=True):
            now = {name: getattr(solution, name) for name in old}
            assert_same(now, old | ({} if old["answer"] else {"text": solution.text}), f"{strategy} {budget}")


@pytest.mark.parametrize("name", make.OBJECTIVES)
def test_trainings(name: str, tmp_path: Path) -> None:
    """Training logs are equal in all ten digits on the kind of processor that made the files (AMD, AVX-512).

    Elsewhere they differ by up to 6.5e-6, which grows over the six updates: trainings run in float32, and torch adds
    numbers in another order with other vector widths. Measured by running this test under
    `ATEN_CPU_CAPABILITY=default` and `=avx2`. So the tolerance is 1e-5, and not 1e-6.
    """
    case = golden("trainings")[name]
    policy = make.deterministic(world.tiny_policy(tmp_path / "policy"))
    data = make.table_for(world, case["settings"]["objective"], world.digest_of(policy))
    train(policy, data, tmp_path / "out", training_settings(case["settings"]), log=tmp_path / "log.jsonl")
    assert_same(make.log_figures(tmp_path / "log.jsonl"), case["log"], name, 1e-5)

"""What judges of steps learn from: the labelled steps of trees as sequences whose last states are read.

In: `Steps`, or their file. Out: `TrainingData`.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences.dataset import Pairs, Siblings, Solutions, Steps
from mcts_dpo.preferences.typed_table import TypedTable
from mcts_dpo.training.data.batches import last_tokens, sequences
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.settings import ProcessRewardSettings


def load_steps(path: Path) -> tuple[Steps, str]:
    """The table of labelled steps in a file, or in steps.parquet of a folder, and what messages call it.

    Raises InputError for a file of another kind, and for none.
    """
    accepted = "accepted: steps.parquet, which `mcts-dpo pairs` writes"
    path = path / "steps.parquet" if path.is_dir() else path
    if path.suffix.lower() != ".parquet" or not path.is_file():
        raise InputError(f"{path}: no such table ({accepted})")
    try:
        return Steps.load(path), str(path)
    except InputError:
        other = next((kind.what for kind in (Pairs, Siblings, Solutions) if _is_a(kind, path)), None)
        if other is None:
            raise
    raise InputError(f"{path}: holds {other}, not labelled steps ({accepted})")


def _is_a(kind: type[TypedTable], path: Path) -> bool:
    with suppress(InputError):
        kind.load(path)
        return True
    return False


def correctness(table: Steps, min_samples: int) -> tuple[list[NDArray[np.float64]], list[int | None]]:
    """Which steps are right, and where each path first goes wrong.

    Returns, for each path: [steps] float64, 1 for a right step, 0 for a wrong one, nan where neither is known; and the
    index of its first error, None without one.

    A step of a value above 0 is right. The *first error* of a path is its first step of value 0 after a state with a
    value above 0, if at least `min_samples` samples below it are all wrong, or if the path ends there; it and all steps
    after it are wrong. A value of 0 says nothing in a tree, or below a state, without a right solution. The end of a
    wrong solution is wrong in any case.
    """
    values, counts = table.tokens("values"), table.tokens("counts")
    trees = list(zip(table.texts("problem_id"), table.numbers("tree").tolist(), strict=True))
    solved = {tree for row, tree in enumerate(trees) if values[row][0] > 0}
    labels: list[NDArray[np.float64]] = []
    errors: list[int | None] = []
    for row, tree in enumerate(trees):
        error = None
        right = np.where(values[row] > 0, 1.0, np.nan)
        wrong = np.flatnonzero(values[row] == 0)
        if len(wrong):
            first, last = int(wrong[0]), len(right) - 1
            if (first == last or int(counts[row][first]) >= min_samples) and (first > 0 or tree in solved):
                error = first
            right[last if error is None else error :] = 0.0
        labels.append(right)
        errors.append(error)
    return labels, errors


def collate_steps(table: Steps, source: str, settings: ProcessRewardSettings) -> TrainingData:
    """Every labelled step of the table, once, as a prefix whose last state is read. The steps after a prefix are a row.

    Step columns: "target" in [0, 1], as `settings.target` says, and "count" ≥ 1. Steps whose target is not known are
    left out. Rows are in the order in which the table first has them. Raises InputError for a table without rows.
    """
    if not len(table):
        raise InputError(
            f"{source}: no rows: no step has a solution below it whose outcome is known (accepted: trees of a search "
            "with verified outcomes)"
        )
    prompt, completion, ends = (table.tokens(f"{name}") for name in ("prompt_tokens", "completion_tokens", "step_ends"))
    column = {"soft": "values", "hard": "labels"}.get(settings.target)
    targets: Any = table.tokens(column) if column else correctness(table, settings.min_samples)[0]
    columns = [table.tokens("values"), targets, table.tokens("counts"), table.tokens("nodes")]
    trees = list(zip(table.texts("problem_id"), table.numbers("tree").tolist(), strict=True))
    groups: dict[Any, dict[Any, tuple[Any, float, int]]] = {}
    for row in range(len(table)):
        whole, start = np.concatenate([prompt[row], completion[row]]), len(prompt[row])
        borders = [start, *(start + ends[row]).tolist()]
        labels = zip(*(column[row].tolist() for column in columns), strict=True)
        for (before, end), (value, target, count, node) in zip(pairwise(borders), labels, strict=True):
            if math.isnan(target):
                continue
            # Trees of two shards can have one number, and even equal nodes: the tokens tell states apart.
            group = groups.setdefault((trees[row], start, _digest(whole[:before])), {})
            key = (node, _digest(whole[before:end]), value, count)
            group.setdefault(key, (whole[:end], target, count))
    steps = [step for group in groups.values() for step in group.values()]
    lengths = np.array([len(step[0]) for step in steps], dtype=np.int64)
    sizes = np.array([len(group) for group in groups.values()], dtype=np.int64)
    found = sequences([[step[0]] for step in steps], lengths - 1, lengths - 1, np.zeros(len(steps)), per_row=sizes)
    prompts: dict[bytes, int] = {}
    starts = np.cumsum(sizes) - sizes
    tree = [
        prompts.setdefault(_digest(steps[first][0][:start]), len(prompts))
        for (_, start, _), first in zip(groups, starts.tolist(), strict=True)
    ]
    return TrainingData(
        last_tokens(found, tree=np.array(tree, dtype=np.int64)),
        np.ones(len(sizes)),
        {},
        {name: np.array([step[place] for step in steps], np.float64) for place, name in ((1, "target"), (2, "count"))},
        table.tokenizer,
        source,
    )


def _digest(tokens: NDArray[Any]) -> bytes:
    return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()

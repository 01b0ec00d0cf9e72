"""Extracts labelled steps from search trees: what a reward model for steps learns from.

In: forests. Out: `Steps`. The label of a step is a Monte Carlo estimate from the samples below it, so it needs no
annotator. The samples are those of the search. A search that prefers good branches samples them more often, so a
value is that of the search's sampling, and above that of independent samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.preferences.dataset import Steps
from mcts_dpo.preferences.extract import forest_tokenizer
from mcts_dpo.search import Forest


def extract_steps(forests: Iterable[Forest]) -> Steps:
    """Extract all labelled paths from forests, in the order of forest, tree and leaf. The table may be empty.

    Steps below which no outcome is known have no label and are left out. Raises InputError if there is no forest, or if
    the forests' tokenizers differ.
    """
    return Steps.concatenate([_forest_steps(forest) for forest in forests])


def outcomes_below(forest: Forest) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each node, the samples that ended there or below with a known outcome, and how many of them are right.

    Returns (known, right): [N] int64 each, right ≤ known. A solution that was sampled twice counts twice. A node that
    the policy never sampled (a reference solution's) counts for nothing.
    """
    known = np.where(forest.outcome != 0, forest.samples, 0).astype(np.int64)
    right = np.where(forest.outcome > 0, forest.samples, 0).astype(np.int64)
    for depth in range(forest.height, 0, -1):
        nodes = np.flatnonzero(forest.depth == depth)
        for counts in (known, right):
            np.add.at(counts, forest.parent[nodes], counts[nodes])
    return known, right


def _forest_steps(forest: Forest) -> Steps:
    known, right = outcomes_below(forest)
    rows: list[dict[str, Any]] = []
    for tree, (info, nodes) in enumerate(zip(forest.trees, forest.nodes_by_tree(), strict=True)):
        labelled = nodes[(known[nodes] > 0) & (forest.depth[nodes] > 0)]
        continued = set(forest.parent[labelled].tolist())
        if info.status != "failed":
            rows += [_row(forest, tree, leaf, known, right) for leaf in labelled.tolist() if leaf not in continued]
    columns = {name: [row[name] for row in rows] for name in Steps.schema.names}
    return Steps.from_columns(columns, forest_tokenizer(forest))


def _row(forest: Forest, tree: int, leaf: int, known: NDArray[np.int64], right: NDArray[np.int64]) -> dict[str, Any]:
    info, nodes = forest.trees[tree], forest.path(leaf)[1:]
    return {
        "problem_id": info.problem_id,
        "tree": tree,
        "leaf": leaf,
        "prompt": info.prompt_text,
        "completions": [forest.texts[node] for node in nodes],
        "labels": (right[nodes] > 0).tolist(),
        "prompt_tokens": info.prompt_tokens,
        "completion_tokens": forest.solution_tokens(leaf),
        "completion_environment": forest.reply_indices(nodes),
        "step_ends": np.cumsum(forest.length[nodes]).tolist(),
        "nodes": nodes,
        "values": (right[nodes] / known[nodes]).tolist(),
        "counts": known[nodes].tolist(),
    }

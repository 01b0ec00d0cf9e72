"""Extracts lists from search trees: all siblings after one prefix, with their values and counts.

In: forests. Out: `Siblings`. All token ids, log-probabilities and counts come from the trees. The steps of a list have
one parent, so a list never crosses problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from mcts_dpo.preferences.dataset import Siblings
from mcts_dpo.preferences.extract import (
    PreferenceSettings,
    best_path,
    evidence,
    forest_tokenizer,
    ranked_children,
    shrunk_q,
)
from mcts_dpo.search import Forest


def extract_siblings(forests: Iterable[Forest], settings: PreferenceSettings | None = None) -> Siblings:
    """Extract all lists from forests, in the order of forest, tree and parent. The best step of a list is first.

    `select` chooses the parents: those on the best path, or all. `min_visits` chooses their children. `min_gap` is the
    least difference in Q' between the best and the worst step of a list. The table may be empty. Raises InputError as
    `extract_pairs` does.
    """
    settings = settings or PreferenceSettings()
    return Siblings.concatenate([_forest_lists(forest, settings) for forest in forests])


def _forest_lists(forest: Forest, settings: PreferenceSettings) -> Siblings:
    rows: list[dict[str, Any]] = []
    by_tree = forest.nodes_by_tree()
    for tree, info in enumerate(forest.trees):
        if info.status == "failed":
            continue
        if settings.select == "best_path":
            parents = best_path(forest, info.root, settings.shrinkage)
        else:
            parents = by_tree[tree].tolist()
        for parent in parents:
            rows += _list(forest, tree, parent, settings)
    columns = {name: [row[name] for row in rows] for name in Siblings.schema.names}
    return Siblings.from_columns(columns, forest_tokenizer(forest))


def _list(forest: Forest, tree: int, parent: int, settings: PreferenceSettings) -> list[dict[str, Any]]:
    """The rows of one parent's list. [] if it has fewer than two usable children or if they differ too little."""
    children: dict[tuple[int, ...], int] = {}
    for node in ranked_children(forest, parent, settings.shrinkage):
        # A step of a reference solution that the policy never sampled has no log-probability.
        if int(forest.visits[node]) >= settings.min_visits and not math.isnan(forest.logprob[node]):
            # Siblings differ in text, but their ids can agree. The better one is kept.
            children.setdefault(tuple(forest.step_tokens(node)), node)
    values = [shrunk_q(forest, node, settings.shrinkage) for node in children.values()]
    if len(values) < 2 or values[0] == values[-1] or values[0] - values[-1] < settings.min_gap:
        return []
    nodes = list(children.values())
    info = forest.trees[tree]
    value = forest.value_before(parent) + float(forest.v[parent])
    shared = {
        "problem_id": info.problem_id,
        "tree": tree,
        "parent": parent,
        "prompt": info.prompt_text + forest.solution_text(parent),
        "prompt_tokens": info.prompt_tokens,
        "prefix_tokens": forest.solution_tokens(parent),
        "prefix_environment": forest.reply_indices(forest.path(parent)),
        "parent_value": value,
        "weight": evidence(forest, nodes[0], nodes[-1]) if settings.weight == "samples" else 1.0,
    }
    return [
        shared
        | {
            "node": node,
            "rank": rank,
            "completion": forest.texts[node],
            "label": forest.value(node) > value,
            "step_tokens": list(tokens),
            "step_environment": forest.reply_indices([node]),
            "q": forest.value(node),
            "value": values[rank],
            "visits": int(forest.visits[node]),
            "samples": max(1, int(forest.samples[node])),
            "prior": float(forest.prior[node]),
            "logprob": float(forest.logprob[node]),
        }
        for rank, (tokens, node) in enumerate(children.items())
    ]

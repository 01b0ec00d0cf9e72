"""What a search did, in a few numbers. In: forests. Out: JSON that depends on the trees alone, never on the clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mcts_dpo.search.forest import NONE, Forest


def first_sample(forest: Forest, tree: int) -> int:
    """The node in which a tree's very first sample ends: the root's first child, its first child, and so on.

    Under `expand: rollout` this is one independent sample of the policy on this problem, before any search.
    """
    node = forest.trees[tree].root
    while (child := int(forest.first_child[node])) != NONE:
        node = child
    return node


def search_statistics(forests: Iterable[Forest]) -> dict[str, Any]:
    """Counts over all trees, and shares in [0, 1] of the trees that were searched to an end.

    first_sample_accuracy: share whose first sample was verified right: the policy's accuracy on fresh problems.
    covered:               share with at least one right solution.
    mixed:                 share with a right and a wrong solution: those that can teach.
    value_low, value_high: the scale of Q that was met (outcome in [-1, 1] plus weighted confidence).
    """
    trees = nodes = failed = tokens = simulations = unanswered = unparsed = 0
    first, covered, mixed = [], [], []
    low, high = np.inf, -np.inf
    for forest in forests:
        trees += len(forest.trees)
        nodes += len(forest)
        taken = forest.visits > 0
        if taken.any():
            low, high = min(low, float(forest.q[taken].min())), max(high, float(forest.q[taken].max()))
        for index, info in enumerate(forest.trees):
            tokens += info.generated
            simulations += info.simulations
            unanswered += info.unanswered
            unparsed += info.unparsed
            if info.status == "failed":
                failed += 1
                continue
            outcomes = forest.outcome[forest.nodes(index)]
            right, wrong = bool((outcomes > 0).any()), bool((outcomes < 0).any())
            first.append(bool(forest.outcome[first_sample(forest, index)] > 0))
            covered.append(right)
            mixed.append(right and wrong)
    return {
        "trees": trees,
        "nodes": nodes,
        "failed": failed,
        "simulations": simulations,
        "sampled_tokens": tokens,
        "solutions_without_answer": unanswered,
        "answers_not_parsed": unparsed,
        "first_sample_accuracy": float(np.mean(first)) if first else 0.0,
        "covered": float(np.mean(covered)) if covered else 0.0,
        "mixed": float(np.mean(mixed)) if mixed else 0.0,
        "value_low": low if np.isfinite(low) else 0.0,
        "value_high": high if np.isfinite(high) else 0.0,
    }

"""Summarises what a search found, in numbers.

In: forests, or their counts, which any process may make. Out: one flat dictionary of counts and fractions. It holds no
clock times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mcts_dpo.search.tree import NONE, Forest


def first_sample(forest: Forest, tree: int) -> int:
    """The node id where the first sample drawn from the root ends. The root itself if nothing was drawn.

    With `expand: rollout` this sample is a whole solution, drawn as an evaluation at the search's temperature draws it.
    """
    node = forest.trees[tree].root
    # The first child of a node is a step of the first sample of the node's first expansion.
    while forest.first_child[node] != NONE:
        node = int(forest.first_child[node])
    return node


_TOTALS = ("problems", "failed", "exhausted", "simulations", "nodes", "sampled_tokens", "unanswered", "unverified")


@dataclass(slots=True)
class Counts:
    """The counts of some trees from which `search_statistics` makes its figures. Counts of several parts can be added.

    totals:  the counts that `search_statistics` returns, by name.
    first:   trees whose first sample is right. covered: trees with a right solution.
    mixed:   trees with right and wrong solutions.
    right:   samples that ended in a right solution. ended: samples that ended in a solution with a known outcome.
    low, high: the range of Q over the visited steps; inf and -inf if there are none.
    confidence: self-evaluation scores of right (key 1) and wrong (key -1) terminal nodes.
    unscored: paths that a reward could not score, by its kind.
    """

    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOTALS, 0))
    first: int = 0
    covered: int = 0
    mixed: int = 0
    right: int = 0
    ended: int = 0
    low: float = np.inf
    high: float = -np.inf
    confidence: dict[int, list[float]] = field(default_factory=lambda: {1: [], -1: []})
    unscored: Counter[str] = field(default_factory=Counter)


def counts_of(forest: Forest) -> Counts:
    """Count what `search_statistics` needs of one forest."""
    found = Counts()
    totals = found.totals
    totals["nodes"] = len(forest)
    steps = (forest.visits > 0) & (forest.depth > 0)
    found.low = float(forest.q[steps].min(initial=np.inf))
    found.high = float(forest.q[steps].max(initial=-np.inf))
    ends = forest.terminal & (forest.outcome != 0)
    found.ended = int(forest.samples[ends].sum())
    found.right = int(forest.samples[forest.outcome > 0].sum())
    asked = forest.scores.get("self_evaluation", np.full(len(forest), np.nan))
    for sign, judged in found.confidence.items():
        judged.extend(asked[(forest.outcome == sign) & ~np.isnan(asked)].tolist())
    has_right = np.bincount(forest.tree[forest.outcome > 0], minlength=len(forest.trees)) > 0
    has_wrong = np.bincount(forest.tree[forest.outcome < 0], minlength=len(forest.trees)) > 0
    for tree, info in enumerate(forest.trees):
        totals["problems"] += 1
        totals["failed"] += info.status == "failed"
        totals["exhausted"] += info.status == "exhausted"
        totals["simulations"] += info.simulations
        totals["sampled_tokens"] += info.generated
        totals["unanswered"] += info.unanswered
        totals["unverified"] += info.unverified
        found.unscored.update(info.unscored)
        if info.status != "failed":
            found.first += int(forest.outcome[first_sample(forest, tree)] > 0)
            found.covered += int(has_right[tree])
            found.mixed += int(has_right[tree] and has_wrong[tree])
    return found


def counts_of_shard(shard: Path) -> Counts:
    """Count what `search_statistics` needs of one file of trees.

    Raises InputError, naming the file, if it cannot be read.
    """
    return counts_of(Forest.load(shard))


def search_statistics(trees: Iterable[Forest | Counts]) -> dict[str, float | int]:
    """Summarise all trees, given as forests or as their counts. Returns these figures by name:

    problems, simulations, nodes: their numbers.
    failed, exhausted:      numbers of trees with this status.
    sampled_tokens:         tokens, as a budget counts them.
    unanswered, unverified: numbers of terminal nodes (see `TreeInfo`).
    first_sample_accuracy:  fraction of the trees that did not fail whose first sample was right.
    coverage:               fraction of these trees with at least one right solution.
    mixed:                  fraction of these trees with right and wrong solutions.
    sample_accuracy:        fraction of right samples among all samples with a known outcome.
    value_low, value_high:  the range of Q that was seen: [-1, 1] for outcomes, wider with weighted confidence.
    mean_confidence_right, mean_confidence_wrong: mean self-evaluation score C of right and of wrong terminal nodes.
                            Left out where no self-evaluation was asked.
    unscored_KIND:          number of paths that the reward could not score. Left out where it is 0.
    """
    totals, confidence = dict.fromkeys(_TOTALS, 0), {1: list[float](), -1: list[float]()}
    first = covered = mixed = right = ended = 0
    low, high = np.inf, -np.inf
    unscored = Counter[str]()
    for some in trees:
        one = counts_of(some) if isinstance(some, Forest) else some
        totals = {name: count + one.totals[name] for name, count in totals.items()}
        first, covered, mixed = first + one.first, covered + one.covered, mixed + one.mixed
        right, ended = right + one.right, ended + one.ended
        low, high = min(low, one.low), max(high, one.high)
        for sign, found in confidence.items():
            found.extend(one.confidence[sign])
        unscored.update(one.unscored)
    searched = max(1, totals["problems"] - totals["failed"])
    shares = {
        "first_sample_accuracy": first / searched,
        "coverage": covered / searched,
        "mixed": mixed / searched,
        "sample_accuracy": right / max(1, ended),
    }
    named = {"mean_confidence_right": confidence[1], "mean_confidence_wrong": confidence[-1]}
    judged = {name: float(np.mean(found)) for name, found in named.items() if found}
    met = (float(low), float(high)) if low <= high else (0.0, 0.0)
    scale = dict(zip(("value_low", "value_high"), met, strict=True))
    missed = {f"unscored_{kind}": count for kind, count in sorted(unscored.items())}
    return {**totals, **shares, **scale, **judged, **missed}

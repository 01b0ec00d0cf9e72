"""The figures of a search.

In: forests, or counts of them that were taken elsewhere. Out: one flat dictionary of counts and shares, without clock
times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mcts_dpo.search.tree import NONE, Forest


def first_sample(forest: Forest, tree: int) -> int:
    """The node where the first sample drawn from the root ends: for `expand: rollout` a whole solution, as an
    evaluation at the search's temperature would have drawn it. The root itself if nothing was drawn."""
    node = forest.trees[tree].root
    # A first child is the step that the first sample of the first expansion took.
    while forest.first_child[node] != NONE:
        node = int(forest.first_child[node])
    return node


_TOTALS = ("problems", "failed", "exhausted", "simulations", "nodes", "sampled_tokens", "unanswered", "unverified")


@dataclass(slots=True)
class Counts:
    """What `search_statistics` needs of some trees, to be added up. Fields as there; first, covered, mixed: trees;
    right, ended: samples; low, high: the range of Q; confidence: of right (1) and wrong (-1) terminals."""

    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOTALS, 0))
    first: int = 0
    covered: int = 0
    mixed: int = 0
    right: int = 0
    ended: int = 0
    low: float = np.inf
    high: float = -np.inf
    confidence: dict[int, list[float]] = field(default_factory=lambda: {1: [], -1: []})


def counts_of(forest: Forest) -> Counts:
    """The counts of one forest."""
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
        if info.status != "failed":
            found.first += int(forest.outcome[first_sample(forest, tree)] > 0)
            found.covered += int(has_right[tree])
            found.mixed += int(has_right[tree] and has_wrong[tree])
    return found


def counts_of_shard(shard: Path) -> Counts:
    """The counts of one file of trees. Raises InputError naming it if it cannot be read."""
    return counts_of(Forest.load(shard))


def search_statistics(trees: Iterable[Forest | Counts]) -> dict[str, float | int]:
    """Figures over all trees, given as forests or as their counts; shares and means are over those searched to an end.

    problems; failed, exhausted: trees; simulations; nodes;
    sampled_tokens: as a budget counts them;
    first_sample_accuracy: share of the trees whose first sample was right;
    coverage: share with at least one right solution; mixed: share with right and wrong ones;
    sample_accuracy: share of right ones among the finished samples;
    unanswered, unverified: terminal nodes (see `TreeInfo`);
    value_low, value_high: the scale of Q that was met: [-1, 1] for outcomes, widened by weighted confidence;
    mean_confidence_right, mean_confidence_wrong: mean C over terminals, where it was asked (else left out).
    """
    totals, confidence = dict.fromkeys(_TOTALS, 0), {1: list[float](), -1: list[float]()}
    first = covered = mixed = right = ended = 0
    low, high = np.inf, -np.inf
    for some in trees:
        one = counts_of(some) if isinstance(some, Forest) else some
        totals = {name: count + one.totals[name] for name, count in totals.items()}
        first, covered, mixed = first + one.first, covered + one.covered, mixed + one.mixed
        right, ended = right + one.right, ended + one.ended
        low, high = min(low, one.low), max(high, one.high)
        for sign, found in confidence.items():
            found.extend(one.confidence[sign])
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
    return {**totals, **shares, **scale, **judged}

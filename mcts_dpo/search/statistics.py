"""What a search found, in figures. In: forests. Out: one flat dictionary of counts and shares, free of clock times."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mcts_dpo.search.forest import NONE, Forest


def first_sample(forest: Forest, tree: int) -> int:
    """The node where the first sample drawn from the root ends: for `expand: rollout` a whole solution, as an
    evaluation at the search's temperature would have drawn it. The root itself if nothing was drawn."""
    node = forest.trees[tree].root
    # A first child is the step that the first sample of the first expansion took.
    while forest.first_child[node] != NONE:
        node = int(forest.first_child[node])
    return node


def search_statistics(forests: Iterable[Forest]) -> dict[str, float | int]:
    """Figures over all trees; shares and means are over those that were searched to an end.

    problems; failed, exhausted: trees; simulations; nodes;
    sampled_tokens: as a budget counts them;
    first_sample_accuracy: share of the trees whose first sample was right;
    coverage: share with at least one right solution; mixed: share with right and wrong ones;
    sample_accuracy: share of right ones among the finished samples;
    unanswered, unverified: terminal nodes (see `TreeInfo`);
    value_low, value_high: the scale of Q that was met: [-1, 1] for outcomes, widened by weighted confidence;
    mean_confidence_right, mean_confidence_wrong: mean C over terminals, where it was asked (else left out).
    """
    counts = dict.fromkeys(
        ("problems", "failed", "exhausted", "simulations", "nodes", "sampled_tokens", "unanswered", "unverified"), 0
    )
    first = covered = mixed = right_samples = ended_samples = 0
    low, high = np.inf, -np.inf
    confidence: dict[int, list[float]] = {1: [], -1: []}
    for forest in forests:
        counts["nodes"] += len(forest)
        steps = (forest.visits > 0) & (forest.depth > 0)
        low = min(low, float(forest.q[steps].min(initial=np.inf)))
        high = max(high, float(forest.q[steps].max(initial=-np.inf)))
        ends = forest.terminal & (forest.outcome != 0)
        ended_samples += int(forest.samples[ends].sum())
        right_samples += int(forest.samples[forest.outcome > 0].sum())
        for sign, found in confidence.items():
            asked = forest.confidence[forest.outcome == sign]
            found.extend(asked[~np.isnan(asked)].tolist())
        has_right = np.bincount(forest.tree[forest.outcome > 0], minlength=len(forest.trees)) > 0
        has_wrong = np.bincount(forest.tree[forest.outcome < 0], minlength=len(forest.trees)) > 0
        for tree, info in enumerate(forest.trees):
            counts["problems"] += 1
            counts["failed"] += info.status == "failed"
            counts["exhausted"] += info.status == "exhausted"
            counts["simulations"] += info.simulations
            counts["sampled_tokens"] += info.generated
            counts["unanswered"] += info.unanswered
            counts["unverified"] += info.unverified
            if info.status != "failed":
                first += int(forest.outcome[first_sample(forest, tree)] > 0)
                covered += int(has_right[tree])
                mixed += int(has_right[tree] and has_wrong[tree])
    trees = max(1, counts["problems"] - counts["failed"])
    shares = {
        "first_sample_accuracy": first / trees,
        "coverage": covered / trees,
        "mixed": mixed / trees,
        "sample_accuracy": right_samples / max(1, ended_samples),
    }
    named = {"mean_confidence_right": confidence[1], "mean_confidence_wrong": confidence[-1]}
    judged = {name: float(np.mean(found)) for name, found in named.items() if found}
    met = (float(low), float(high)) if low <= high else (0.0, 0.0)
    scale = dict(zip(("value_low", "value_high"), met, strict=True))
    return {**counts, **shares, **scale, **judged}

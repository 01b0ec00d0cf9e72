"""Rules by which siblings are picked against each other, and pairs are kept: numbers in, numbers out.

Knows no tree and no model. What needs a model is not here: the filter by hidden embeddings (CHES, Razin et al. 2024,
arXiv 2410.08847) takes hidden states of both steps, which the search does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import norm

Order = Literal["tree", "boundary", "margin"]


def two_sigma_below(values: Sequence[float], counts: Sequence[int]) -> int:
    """Which of the siblings is nearest to μ − 2σ of their values, each counted as often as it was sampled.

    values: ≥ 2, best first. counts: ≥ 1 each. Returns an index; of equals the last, and never the first one. With few
    siblings nothing lies as low as μ − 2σ, and it is the worst; with many samples it passes over rare failures.

    Source: Xiao et al. 2025 ("Finding the sweet spot"), arXiv 2502.16825: the response at μ − 2σ is a better rejected
    one than the minimum.
    """
    array, weights = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    mean = float(np.average(array, weights=weights))
    target = mean - 2 * float(np.sqrt(np.average((array - mean) ** 2, weights=weights)))
    distance = np.abs(array[1:] - target)
    return len(values) - 1 - int(np.argmin(distance[::-1]))


def certainty(better: float, better_visits: int, worse: float, worse_visits: int) -> float:
    """Probability in (0, 1) that the better step's true value is above the worse one's, given how little was seen.

    better, worse: Q in [−1, 1] (what lies beyond, by self-evaluation, is taken for the bound); visits: ≥ 0. Each
    step's share of right outcomes, (Q + 1) / 2, has a Beta posterior from a uniform prior, n visits strong; the
    difference of the two is taken as normal.

    Uncertain pairs are left out in the spirit of UPO (Wang et al. 2024, arXiv 2409.11212: pairs are chosen
    by an estimator's uncertainty); there the estimator is a network with dropout, here the tree's own counts are.
    """
    mean, variance = 0.0, 0.0
    for sign, value, visits in ((1.0, better, better_visits), (-1.0, worse, worse_visits)):
        right = visits * (min(1.0, max(-1.0, value)) + 1) / 2
        share, strength = (1 + right) / (2 + visits), 2 + visits
        mean += sign * share
        variance += share * (1 - share) / (strength + 1)
    return float(norm.cdf(mean / np.sqrt(variance)))


def kept_first(order: Order, margin: float, log_ratio: float) -> float:
    """Sort key of a pair, smaller first, where a tree may keep only some. Ties stay in the order of the tree.

    tree: as they come. margin: the largest gap in Q first. boundary: where the policy that sampled the steps is least
    decided between them, |log π(chosen) − log π(rejected)| (log_ratio, nats) smallest first; a pair with a step that it
    never sampled (nan) last.

    Source of "boundary": Yang et al. 2024 ("Not all preference pairs are created equal"), arXiv 2406.17312: of the
    pairs, those with the smallest margin under the policy's own reward teach most per label. That reward is measured
    against a reference; on-policy, where both are the same, log π is what is left of it.
    """
    if order == "tree":
        return 0.0
    if order == "margin":
        return -margin
    return math.inf if math.isnan(log_ratio) else abs(log_ratio)

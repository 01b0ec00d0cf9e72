"""Rules that choose the rejected sibling and the pairs to keep: numbers in, numbers out.

The filter by hidden embeddings (CHES, Razin et al. 2024, arXiv 2410.08847) is not here: it needs hidden states of both
steps, which the search does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import norm

Order = Literal["tree", "boundary", "margin"]


def two_sigma_below(values: Sequence[float], counts: Sequence[int]) -> int:
    """The index of the sibling nearest to μ − 2σ of the values, each counted as often as it was sampled.

    values: ≥ 2, best first. counts: ≥ 1 each. Of equals the last is returned, and never index 0. With few siblings, no
    value is as low as μ − 2σ, so the result is the worst. With many samples, the rule skips rare failures.

    Source: Xiao et al. 2025 ("Finding the sweet spot"), arXiv 2502.16825: the response at μ − 2σ is a better rejected
    one than the minimum.
    """
    array, weights = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    mean = float(np.average(array, weights=weights))
    target = mean - 2 * float(np.sqrt(np.average((array - mean) ** 2, weights=weights)))
    distance = np.abs(array[1:] - target)
    return len(values) - 1 - int(np.argmin(distance[::-1]))


def certainty(better: float, better_visits: int, worse: float, worse_visits: int) -> float:
    """The probability in (0, 1) that the better step's true value is above that of the worse one, given the visits.

    better, worse: Q, clipped to [−1, 1]. visits: ≥ 0. The rate of right outcomes of a step, (Q + 1) / 2, has a Beta
    posterior from a uniform prior and n visits. The difference of the two is treated as normal.

    Leaving out uncertain pairs follows UPO (Wang et al. 2024, arXiv 2409.11212). There the uncertainty comes from a
    network with dropout, here from the counts of the tree.
    """
    mean, variance = 0.0, 0.0
    for sign, value, visits in ((1.0, better, better_visits), (-1.0, worse, worse_visits)):
        right = visits * (min(1.0, max(-1.0, value)) + 1) / 2
        share, strength = (1 + right) / (2 + visits), 2 + visits
        mean += sign * share
        variance += share * (1 - share) / (strength + 1)
    return float(norm.cdf(mean / np.sqrt(variance)))


def kept_first(order: Order, margin: float, log_ratio: float) -> float:
    """The sort key of a pair, for trees that keep only some pairs; smaller keys first, ties in the order of the tree.

    tree: the order of the tree. margin: the largest gap in Q first. boundary: the smallest |log π(chosen) −
    log π(rejected)| first (log_ratio, nats), where the sampling policy is least decided. A pair with a step that the
    policy never sampled (nan) comes last.

    Source of "boundary": Yang et al. 2024 ("Not all preference pairs are created equal"), arXiv 2406.17312: pairs with
    the smallest margin under the policy's own reward teach most per label. That reward is relative to a reference
    policy. On-policy, both are the same and log π remains.
    """
    if order == "tree":
        return 0.0
    if order == "margin":
        return -margin
    return math.inf if math.isnan(log_ratio) else abs(log_ratio)

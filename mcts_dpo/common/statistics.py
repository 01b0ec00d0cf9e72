"""The statistics behind every reported figure: intervals and paired tests. Randomness comes from a seed.

Intervals are two-sided; `level` is their coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval [low, high], all in the unit of the value."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """The fraction of successes with its Wilson score interval (Wilson 1927). Raises ValueError for `trials` < 1."""
    result = stats.binomtest(successes, trials)
    interval = result.proportion_ci(level, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high))


def bootstrap_mean(values: Sequence[float] | Floats, level: float = 0.95, resamples: int = 2000) -> Estimate:
    """The mean of independent values ([n], n ≥ 1) with a percentile bootstrap interval; a fixed seed."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to average")
    picks = np.random.default_rng(0).integers(array.size, size=(resamples, array.size))
    low, high = np.quantile(array[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(array.mean()), float(low), float(high))


def mean_t(values: Sequence[float] | Floats, level: float = 0.95) -> Estimate:
    """The mean of a few independent runs ([n], n ≥ 2) with Student's t interval."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("a t interval needs at least two values")
    half = float(stats.sem(array) * stats.t.ppf((1 + level) / 2, array.size - 1))
    return Estimate(float(array.mean()), float(array.mean()) - half, float(array.mean()) + half)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two policies on the same problems.

    difference: mean of (after − before), with a bootstrap interval over problems.
    gained:     problems that only `after` solves; lost: problems that only `before` solves.
    p_value:    exact two-sided McNemar test, a binomial test of gained against lost; 1 if the policies never disagree.
    """

    difference: Estimate
    gained: int
    lost: int
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def compare_paired(before: Sequence[bool], after: Sequence[bool]) -> PairedComparison:
    """Compare two lists of outcomes over the same problems in the same order. Lengths must agree (ValueError)."""
    if len(before) != len(after):
        raise ValueError(f"paired outcomes of different lengths: {len(before)} and {len(after)}")
    delta = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    gained, lost = int((delta > 0).sum()), int((delta < 0).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return PairedComparison(bootstrap_mean(delta), gained, lost, p_value)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"k = {k} is outside 1..{samples}")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def area_under_roc(scores: Sequence[float] | Floats, labels: Sequence[bool]) -> float | None:
    """The chance that a positive's score exceeds a negative's; ties count half. None without both kinds."""
    array, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    ranks = stats.rankdata(array)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def weighted_auc(
    scores: Floats, positive: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None = None
) -> Callable[[Floats], float]:
    """`area_under_roc` as a function of the items' weights.

    Args:
        scores: [n] scores. positive: [n] labels.
        groups: [n] only items of one group are compared; None: all are.

    Returns:
        The function from weights ([n], ≥ 0) to the area; nan if no positive and negative item are left to compare. It
        costs O(n).
    """
    within = np.zeros(len(scores), np.int64) if groups is None else groups
    order = np.lexsort((scores, within))
    ordered, up, group = scores[order], positive[order], within[order]
    fresh = np.append(True, group[1:] != group[:-1])[: len(order)]
    starts = np.flatnonzero(fresh | np.append(True, ordered[1:] != ordered[:-1])[: len(order)])
    group_starts = np.flatnonzero(fresh[starts])  # among blocks of equal scores
    sizes = np.diff(np.append(group_starts, len(starts)))

    def area(weights: Floats) -> float:
        if not len(starts):
            return float("nan")
        mine = weights[order]
        ups, downs = (np.add.reduceat(mine * kind, starts) for kind in (up, ~up))
        below = np.cumsum(downs) - downs / 2
        below -= np.repeat((np.cumsum(downs) - downs)[group_starts], sizes)
        pairs = float((np.add.reduceat(ups, group_starts) * np.add.reduceat(downs, group_starts)).sum())
        return float((ups * below).sum() / pairs) if pairs else float("nan")

    return area


def cluster_bootstrap(
    statistic: Callable[[Floats], float], clusters: Sequence[Hashable], level: float = 0.95, resamples: int = 1000
) -> Estimate | None:
    """A statistic of items that belong together in clusters, with a percentile bootstrap interval over whole clusters.

    Items of one cluster (steps of one problem) are not independent. So whole clusters are drawn; a fixed seed.

    Args:
        statistic: from weights of the items ([n], ≥ 0; how often each is drawn) to a value; nan where it has none.
        clusters: [n] the cluster of each item.

    Returns:
        None if the statistic of the whole sample is nan. Draws without a value are left out of the interval.
    """
    value = statistic(np.ones(len(clusters)))
    if np.isnan(value):
        return None
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([names[name] for name in clusters])
    rng = np.random.default_rng(0)
    drawn = (np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(resamples))
    found = np.array([statistic(counts[member].astype(np.float64)) for counts in drawn])
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2]) if not np.isnan(found).all() else (value,) * 2
    return Estimate(value, float(low), float(high))

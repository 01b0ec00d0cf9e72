"""The one formula of the reward: R = Σ weight · score, over the rewards that have a score.

For an outcome O and a self-evaluation C it is R = O + w · C (Xie et al. 2024, arXiv 2405.00451, section 2.1). An
unknown score (nan) adds nothing. The formula gives the reward of one step; a search adds rewards up along a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.rewards.base import RewardSettings


def combine(rewards: Iterable[RewardSettings], scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """R of some paths.

    Args:
        rewards: the entries of `search.rewards`.
        scores: [n] raw scores by kind, nan where there is none; kinds without a weight are left out.

    Returns:
        [n] Σ weight · score, added in the order of `rewards`.
    """
    terms = [one.weight * np.nan_to_num(scores[one.kind], nan=0.0) for one in rewards if one.kind in scores]
    return np.asarray(sum(terms), np.float64)


def bounds(rewards: Iterable[RewardSettings]) -> tuple[float, float]:
    """The least and the greatest R of one step, 0 (nothing is known) included."""
    ranges = [(one.weight * min(0.0, one.bounds[0]), one.weight * max(0.0, one.bounds[1])) for one in rewards]
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)

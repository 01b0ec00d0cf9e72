"""The one formula of the reward. R(s) is what a state is worth, and the reward of a step is how much it changes R.

R(s) = Σ weight · score, over the rewards that know state s or a state before it (the last score counts). A step from s
to s' has the reward r = R(s') − R(s), with R = 0 before the first step (`accumulate: difference`). The rewards along a
path then sum to R of its end, so that values stay in the range of R at any depth. For an outcome O and a
self-evaluation C, R = O + w · C. Xie et al. 2024 (arXiv 2405.00451, section 2.1) define this R; their released code
subtracts the value of the parent (`mcts/mcts.py`). With `accumulate: sum` the reward of a step is Σ weight · score of
its own scores, and long paths gather more than short ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.rewards.base import RewardSettings

Accumulate = Literal["difference", "sum"]


def combine(rewards: Iterable[RewardSettings], scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The weighted sum of scores. An unknown score adds nothing.

    Args:
        rewards: the entries of `search.rewards`.
        scores: [n] raw scores by kind, nan where there is none; kinds without a weight are left out.

    Returns:
        [n] Σ weight · score, added in the order of `rewards`.
    """
    terms = [one.weight * np.nan_to_num(scores[one.kind], nan=0.0) for one in rewards if one.kind in scores]
    return np.asarray(sum(terms), np.float64)


def last_known(scores: NDArray[np.float64], parent: NDArray[np.int32], nodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The last score on the path to each node, its own included.

    Args:
        scores: [N] raw scores of a forest's nodes, nan where there is none.
        parent: [N] node ids; −1 for a root.
        nodes: [n] node ids.

    Returns:
        [n] scores; nan where no node of the path has one.
    """
    found, above = scores[nodes], parent[nodes]
    while (unknown := np.isnan(found) & (above >= 0)).any():
        found[unknown] = scores[above[unknown]]
        above = np.where(unknown, parent[above], above)
    return found


def bounds(rewards: Iterable[RewardSettings]) -> tuple[float, float]:
    """The least and the greatest R(s), 0 (nothing is known) included."""
    ranges = [(one.weight * min(0.0, one.bounds[0]), one.weight * max(0.0, one.bounds[1])) for one in rewards]
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)


def formula(rewards: Iterable[RewardSettings], accumulate: Accumulate) -> str:
    """The formula of these rewards and its range, as one line for people."""
    entries = [one for one in rewards if one.weight]
    terms = " + ".join(f"{one.weight:g} · {one.kind}" + (" (ends)" if one.at == "terminal" else "") for one in entries)
    low, high = bounds(entries)
    step = "R(s') − R(s)" if accumulate == "difference" else "R(s'), summed along a path"
    return f"R = {terms}, from {low:g} to {high:g}; a step's reward: {step}"

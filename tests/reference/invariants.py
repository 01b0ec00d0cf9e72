"""What holds of a forest at any moment of a search, whatever its rules are.

In: a forest and the settings that it was searched with. Out: what is wrong, one line each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.rewards.combine import bounds
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.tree import IN_FLIGHT, NONE, Forest


def _range_of_q(settings: SearchSettings, depth: int) -> tuple[float, float]:
    """The least and the greatest Q that can be. depth: of the deepest node."""
    low, high = bounds(settings.rewards)
    if settings.accumulate == "difference":
        return low - high, high - low
    terminal = bounds(one for one in settings.rewards if one.at == "terminal")
    everywhere = bounds(one for one in settings.rewards if one.at == "all")
    return terminal[0] + depth * everywhere[0], terminal[1] + depth * everywhere[1]


def violations(forest: Forest, settings: SearchSettings, *, finished: bool = True) -> list[str]:
    """Every broken invariant with the first node that breaks it; [] for a sound forest.

    finished: False while a search is under way: virtual losses may be out, and new nodes not yet judged.
    """
    step, nodes = forest.depth > 0, np.arange(len(forest))
    misplaced = step & ((forest.parent < 0) | (forest.parent >= nodes))
    if misplaced.any():  # nothing else can be said then
        return [f"a parent comes after its child: node {int(np.argmax(misplaced))}"]
    above = np.where(step, forest.parent, 0)
    visits = forest.visits
    below = np.bincount(above[step], weights=visits[step], minlength=len(forest)).astype(np.int64)
    total = np.bincount(above[step], weights=visits[step], minlength=len(forest))
    valued = np.bincount(above[step], weights=(visits * forest.q)[step], minlength=len(forest))
    prior = np.bincount(above[step], weights=forest.prior[step], minlength=len(forest))
    parents = forest.first_child != NONE
    low, high = _range_of_q(settings, forest.height)

    def near(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
        close: NDArray[np.bool_] = np.abs(left - right) < 1e-9
        return close

    # While a search is under way, a new node has no visits or, if a draw below it was backed up before the draw that
    # made it, no prior yet; and its parent's priors do not hold.
    fresh = np.zeros(len(forest), np.bool_)
    fresh[above[step & ((forest.visits == 0) | (forest.prior == 0.0))]] = not finished
    settled = (finished | (visits > 0)) & ~fresh
    rules = {
        "a child in another tree, or not one step deeper": ~step
        | ((forest.tree == forest.tree[above]) & (forest.depth == forest.depth[above] + 1)),
        "a step without tokens": ~step | (forest.length >= 1),
        "terminal without a reason to end, or the other way round": forest.terminal == (forest.finish > 0),
        "a terminal was expanded, or has children": ~forest.terminal | (~forest.expanded & ~parents),
        "an outcome where no solution ends": (forest.outcome == 0) | forest.terminal,
        "more visits below than here": below <= visits,
        "visits that ended here without a sample": ~parents
        | (settings.expand == "step")
        | (below == visits)
        | ((forest.depth > 0) & ~settled),
        "fewer visits than samples": ~step | (not finished) | (visits >= forest.samples),
        "a step that nobody sampled": ~step | (forest.samples >= 1) | settings.reference_child,
        "Q out of range": (forest.q >= low - 1e-9) & (forest.q <= high + 1e-9),
        "V is not the mean of the children's Q": ~parents
        | ~settled
        | near(forest.v, np.divide(valued, total, out=np.zeros(len(forest)), where=total > 0)),
        "Q is not R + γ V": ~step
        | ~settled
        | (settings.backup != "paper")
        | near(forest.q, forest.reward + settings.gamma * forest.v),
        "priors do not sum to 1": ~parents
        | ~settled
        | (settings.prior != "normalised")
        | near(prior, np.ones(len(forest))),
        "a virtual loss below zero": forest.virtual >= 0,
        "a virtual loss remains": forest.virtual == 0 if finished else np.ones(len(forest), np.bool_),
        "still in flight": forest.closed != IN_FLIGHT if finished else np.ones(len(forest), np.bool_),
    }
    found = [f"{what}: node {int(np.argmin(holds))}" for what, holds in rules.items() if not np.all(holds)]
    if finished and settings.advance == "none":
        found += [
            f"tree {place}: {info.simulations} simulations of {settings.simulations}"
            for place, info in enumerate(forest.trees)
            if info.simulations > settings.simulations
        ]
    return found

"""Wider or deeper, by Thompson sampling: at each node, drawing a new sample competes with continuing below a child.

The rule is AB-MCTS-A (Inoue et al. 2025, arXiv 2503.04412, section 3.3: node aggregation) with Beta posteriors. A step
that is sampled is an observation r, the judges' belief after it (`base.belief`), in [0, 1]. At its parent it is an
observation of GEN, "draw a new sample". At every node further up it is an observation of the child on the path, and of
CONT, "continue below a child". The posterior after observations r is Beta(prior + Σ r, prior + Σ (1 − r)).

From the search root on, GEN and CONT each draw a number from their posteriors at the node. If GEN's is not less, one
sample is drawn from the node. Otherwise the children each draw a number, and the search goes to the child with the
greatest. Ends of solutions do not compete. A node whose children all are ends is drawn from again, so a tree is never
exhausted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from mcts_dpo.common.files import seed_from
from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw, belief
from mcts_dpo.search.allocation.registry import register_allocation

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class AdaptiveSettings(AllocationSettings):
    """At each node, a new sample competes with continuing below a child, by Thompson sampling (AB-MCTS-A).

    prior: both parameters of the Beta prior of every posterior. 0.5: Jeffreys' prior, as in the paper.
    """

    kind: Literal["adaptive"] = "adaptive"
    prior: float = Field(default=0.5, gt=0.0, allow_inf_nan=False)

    needs_judge: ClassVar[bool] = True
    advances: ClassVar[bool] = True


class Adaptive:
    """See the module. Random numbers depend on the search's seed, the problem's id and the simulation's index only."""

    reopens = True

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._prior = settings.prior
        # By node: Σ r and Σ (1 − r) of the steps sampled there, and of all steps sampled there or below.
        self._drawn: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._below: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        started = range(tree.started, tree.started + wanted)
        nodes = [self._select(state, tree, simulation) for simulation in started]
        kernels.hold(state.forest, nodes)
        return [Draw(node, 1) for node in nodes]

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """See `Allocation`."""
        for end in ends:
            path = state.forest.path(end)
            for place in range(path.index(draw.leaf) + 1, len(path)):
                score = belief(state, path[place])
                if math.isnan(score):  # no judge knows: no observation
                    continue
                for posterior in (self._drawn[path[place - 1]], *(self._below[node] for node in path[:place])):
                    posterior[0] += score
                    posterior[1] += 1.0 - score

    def _select(self, state: SearchState, tree: TreeState, simulation: int) -> int:
        """The node to draw from."""
        forest, node = state.forest, tree.search_root
        rng = np.random.default_rng(seed_from(state.settings.seed, "adaptive", tree.problem.id, simulation))

        def sampled(observed: Iterable[Sequence[float]]) -> float:
            right, wrong = map(sum, zip((self._prior, self._prior), *observed, strict=True))
            return float(rng.beta(right, wrong))

        while children := [child for child in forest.children(node) if not forest.terminal[child]]:
            below = [self._below[child] for child in children]
            if sampled([self._drawn[node]]) >= sampled(below):
                break
            scores = [sampled([one]) for one in below]
            node = children[scores.index(max(scores))]
        return node


register_allocation(AdaptiveSettings, Adaptive)

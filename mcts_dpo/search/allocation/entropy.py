"""Draws whole solutions, and continuations from inside their steps, at the tokens that surprised the policy most.

Every sample is cut at its most surprising tokens, in addition to the ends of its steps (see `expansion.inner_cuts`). A
cut splits a step into two nodes: the tokens before it, and those from it on. A continuation from the first node shares
the tokens before the cut exactly. The surprise of a node is the largest surprisal −log π of a token that follows it.

The rule works in rounds: `solutions` samples from the root, then `branches` continuations. Each continuation is drawn
from the most surprising node (ties: the one that was added first) that has fewer than `tries` of them. If there is
none, a sample is drawn from the root. A tree is never exhausted.

Source: TreeRL (Hou et al. 2025, arXiv 2506.11902: EPTree); see also Li et al. 2025, arXiv 2503.21961. They branch at
tokens of high entropy. Engines give the log-probabilities of the sampled tokens only, so the surprisal stands for the
entropy, which is its mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mcts_dpo.search import kernels
from mcts_dpo.search.allocation.base import AllocationSettings, Draw
from mcts_dpo.search.allocation.registry import register_allocation

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class EntropySettings(AllocationSettings):
    """Whole solutions, and continuations from before their most surprising tokens, inside steps, too (TreeRL's EPTree).

    solutions: samples from the root in one round.
    branches:  continuations in one round, each from the most surprising node.
    tries:     the most continuations from one node.
    cuts:      the most surprising tokens of each sample at which it is cut inside its steps.
    """

    kind: Literal["entropy"] = "entropy"
    solutions: int = Field(default=4, ge=1)
    branches: int = Field(default=8, ge=1)
    tries: int = Field(default=2, ge=1)
    cuts: int = Field(default=2, ge=1)

    expand: ClassVar[str] = "rollout"
    merge: ClassVar[str] = "none"

    def cuts_per_sample(self) -> int:
        """See `AllocationSettings`."""
        return self.cuts


class Entropy:
    """See the module."""

    reopens = True

    def __init__(self, settings: EntropySettings) -> None:
        self._settings = settings
        self._surprise: dict[int, float] = {}  # by node
        self._drawn: Counter[int] = Counter()  # continuations started, by node

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """See `Allocation`."""
        leaves = [self._leaf(tree, simulation) for simulation in range(tree.started, tree.started + wanted)]
        kernels.hold(state.forest, leaves)
        return [Draw(leaf, 1) for leaf in leaves]

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """See `Allocation`."""
        forest = state.forest
        for end in ends:
            for node, after in pairwise(forest.path(end)[1:]):
                surprisal = -float(forest.logprobs[forest.offset[after]])
                if surprisal >= self._surprise.get(node, 0.0):
                    self._surprise[node] = surprisal

    def _leaf(self, tree: TreeState, simulation: int) -> int:
        rule = self._settings
        left = [node for node in self._surprise if self._drawn[node] < rule.tries]
        if simulation % (rule.solutions + rule.branches) < rule.solutions or not left:
            return tree.search_root
        leaf = max(left, key=lambda node: (self._surprise[node], -node))
        self._drawn[leaf] += 1
        return leaf


register_allocation(EntropySettings, Entropy)

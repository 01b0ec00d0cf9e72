"""The interface of an allocation rule: it names the nodes to draw samples from, and learns what was drawn there.

A rule belongs to one tree. It sees the whole tree, and what it draws becomes nodes with visits, values and priors,
whichever rule drew it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mcts_dpo.common.settings import Settings
from mcts_dpo.search import kernels

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState, TreeState


class AllocationSettings(Settings):
    """What every rule has. A rule's own settings are a subclass in its file, where `kind` has a default.

    kind: the rule's name.
    """

    kind: str

    needs_judge: ClassVar[bool] = False
    """Whether it needs a reward that judges every step without the reference answer."""
    expand: ClassVar[str] = ""
    """The value of `search.expand` that it needs; "": any."""
    merge: ClassVar[str] = ""
    """The value of `search.merge` that it needs; "": any."""
    selections: ClassVar[tuple[str, ...]] = ()
    """The values of `search.selection` that it accepts; (): it does not read them."""
    advances: ClassVar[bool] = False
    """Whether it draws below the node that `advance: step` has moved to. False: it needs `advance: none`."""

    def cuts_per_sample(self) -> int:
        """How often a whole solution is cut inside its steps, at its most surprising tokens. 0: never."""
        return 0


@dataclass(frozen=True, slots=True)
class Draw:
    """Samples to draw. leaf: node id to draw from. samples: how many, ≥ 1. chain: what the rule knows of the draw."""

    leaf: int
    samples: int
    chain: Any = None


class Allocation(Protocol):
    """A rule of one tree.

    reopens: whether a node may be drawn from again. Then a tree is never exhausted.
    """

    reopens: bool

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        """Up to `wanted` draws to make now, each of whose leaves has got a virtual loss. [] if there is none now."""
        ...

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        """Learn what a draw came to, after its backup.

        ends: for each sample, the node id where it ends. Empty if the engine refused the draw.
        """
        ...


@dataclass(slots=True, eq=False)
class Chain:
    """A solution in the making, for rules that draw one sample at a time.

    node:  node id to draw from next. drawn: node ids where the draws since it was last set ended. out: a draw is out.
    """

    node: int
    drawn: list[int] = field(default_factory=list)
    out: bool = False

    def restart(self, node: int) -> None:
        """Draw from `node` next, and forget the draws so far."""
        self.node, self.drawn = node, []


def draws_of(chains: list[Chain], state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
    """One draw for each of `wanted` chains that have none out. New chains start at the search root and are added."""
    idle = [chain for chain in chains if not chain.out][:wanted]
    new = [Chain(tree.search_root) for _ in range(wanted - len(idle))]
    chains += new
    for chain in (chosen := [*idle, *new]):
        chain.out = True
    kernels.hold(state.forest, [chain.node for chain in chosen])
    return [Draw(chain.node, 1, chain) for chain in chosen]


def belief(state: SearchState, node: int) -> float:
    """How right the judges hold the state of a node: the weighted mean of the scores of all that judge every step.

    1 for the empty solution of a root; nan if no judge has scored the node. Outcomes do not count: they need the
    reference answer.
    """
    if state.forest.depth[node] == 0:
        return 1.0
    weight = total = 0.0
    for entry in state.settings.rewards:
        if entry.judges and entry.at == "all" and entry.weight:
            score = float(state.forest.scores[entry.kind][node])
            if not math.isnan(score):
                weight, total = weight + entry.weight, total + entry.weight * score
    return total / weight if weight else math.nan

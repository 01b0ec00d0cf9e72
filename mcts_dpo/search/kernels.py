"""The loops of the search over a forest's arrays, compiled: select, back up, release, normalise priors.

In: the columns of a `Forest` (see `tree.NODE_FIELDS` for dtypes and units), changed in place. Out: node ids. Each call
treats any number of trees. Formulas: Xie et al. 2024 (arXiv 2405.00451), section 2.1; AlphaZero (Silver et al. 2017)
for `mean`; Kocsis & Szepesvári 2006 for UCT.

Numba's cache on disk notices a change of this file only: `touch` it after a change of gumbel.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcts_dpo.search.gumbel import gumbel_child
from mcts_dpo.search.tree import EXHAUSTED, IN_FLIGHT, NONE, OPEN

if TYPE_CHECKING:
    from mcts_dpo.search.tree import Forest

PUCT, UCT, GUMBEL = 0, 1, 2
SELECTION_RULES = {"puct": PUCT, "uct": UCT, "gumbel": GUMBEL}
"""The rules by their names in `search.selection`."""
PAPER, MEAN = 0, 1
VIRTUAL_VALUE = -1.0
"""What each expansion in flight counts for until its result is known: one visit that ended wrong."""

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gumbel:
    """What selection by GUMBEL needs (see gumbel.py): a seed for each tree, [T] ints below 2⁶³; the most children of a
    root that are considered; the simulations shared out among them; c_visit and c_scale of σ."""

    seeds: Ints
    considered: int
    simulations: int
    c_visit: float
    c_scale: float


# --- what the search calls --------------------------------------------------------------------------------


def select(
    forest: Forest,
    trees: Ints,
    wanted: Ints,
    rule: int,
    c: float,
    *,
    roots: Ints | None = None,
    gumbel: Gumbel | None = None,
) -> NDArray[np.int64]:
    """For each tree up to `wanted` leaves to expand, best first; each carries a virtual loss and is in flight.

    trees: [T] tree indices, each at most once. wanted: [T] ≥ 0. rule: PUCT, UCT or GUMBEL (then with `gumbel`: at the
    root; below it PUCT), with constant c ≥ 0. roots: [T] where to start, None: at the trees' roots.
    Returns [T, max(wanted)] node ids, padded with -1 where a tree has no further leaf that is neither exhausted
    nor in flight. Ties go to the child that was sampled first.
    """
    starts = np.asarray(forest.roots()[trees] if roots is None else roots, np.int64)
    chosen = np.full((len(starts), int(wanted.max(initial=0))), NONE, np.int64)
    g = gumbel or Gumbel(np.zeros(len(starts), np.int64), 1, 1, 0.0, 0.0)
    _select(
        starts, np.asarray(wanted, np.int64), rule, c, chosen,
        np.asarray(g.seeds, np.int64), g.considered, g.simulations, g.c_visit, g.c_scale,
        forest.parent, forest.first_child, forest.next_sibling, forest.visits, forest.q, forest.prior,
        forest.expanded, forest.expansions, forest.closed, forest.virtual,
    )  # fmt: skip
    return chosen


def best_child(forest: Forest, node: int, rule: int, c: float, barred: NDArray[Any]) -> int:
    """The child of highest score among those whose entry in `barred` [N] is 0, or -1 if there is none.

    rule: PUCT or UCT. c: as in `select`. Ties go to the child that was sampled first.
    """
    child: int = _best_child(
        node, rule, c, forest.first_child, forest.next_sibling, forest.visits, forest.q, forest.prior, barred,
        forest.virtual,
    )  # fmt: skip
    return child


def hold(forest: Forest, leaves: Sequence[int]) -> None:
    """Give each of `leaves` (node ids; one may occur more than once) a virtual loss, as `select` does."""
    for leaf in leaves:
        _hold(leaf, forest.parent, forest.first_child, forest.next_sibling, forest.closed, forest.virtual)


def release(forest: Forest, leaves: Ints, expanded: bool = True) -> None:
    """Take the virtual losses of `leaves` [L] back. Mark them expanded (or, after a failure, not), count that upwards,
    and open or close the paths above them accordingly."""
    _release(
        np.asarray(leaves, np.int64), expanded, forest.parent, forest.first_child, forest.next_sibling,
        forest.terminal, forest.expanded, forest.expansions, forest.closed, forest.virtual,
    )  # fmt: skip


def back_up(forest: Forest, ends: Ints, rule: int, gamma: float) -> None:
    """One visit for each entry of `ends` [E] (a node may occur more than once), all the way to its root.

    PAPER: Q(s,a) = r(s,a) + γ V(s'), V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a). MEAN: Q(s,a) = mean over the visits of the
    edge of the return G = r(s,a) + γ G' seen by each, with G' = 0 beyond the last node; V as above. Both are computed
    from the children and visits as they now are, and hold after the call wherever an entry passed. So values depend on
    a tree's rewards and visits only (see `recompute`). Rewards are read, not made.
    """
    _back_up(np.asarray(ends, np.int64), rule, gamma, *_valued(forest))


def refresh(forest: Forest, nodes: Ints, rule: int, gamma: float) -> None:
    """V and Q from `nodes` [N] up to their roots as the children now are, without a visit (rules as in `back_up`)."""
    _refresh(np.asarray(nodes, np.int64), rule, gamma, *_valued(forest))


def recompute(forest: Forest, rule: int, gamma: float) -> None:
    """V and Q (and the returns of MEAN) of all nodes, from rewards and visits. What a search left is reproduced
    bit by bit, because each value is computed as in `back_up`, in the same order of the children."""
    forest.returns[:] = 0.0
    _recompute(rule, gamma, *_valued(forest))


def _valued(forest: Forest) -> tuple[NDArray[Any], ...]:
    """The columns that `_set_value` reads and writes, in its order."""
    return (
        forest.parent, forest.first_child, forest.next_sibling,
        forest.visits, forest.q, forest.v, forest.reward, forest.returns,
    )  # fmt: skip


def set_priors(forest: Forest, parents: Ints, normalised: bool) -> None:
    """p(a|s) of all children of `parents` [P] from their masses: divided by the siblings' sum, or as they are.

    Every child has been sampled. Where all masses are 0 (vanishing probability), the samples' shares are taken.
    """
    _set_priors(
        np.asarray(parents, np.int64), normalised, forest.first_child, forest.next_sibling,
        forest.samples, forest.mass, forest.prior,
    )  # fmt: skip


# --- select -----------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _select(
    roots: Ints, wanted: Ints, rule: int, c: float, chosen: Ints,
    seeds: Ints, considered: int, simulations: int, c_visit: float, c_scale: float,
    parent: Ints, first_child: Ints, next_sibling: Ints, visits: Ints, q: Floats, prior: Floats,
    expanded: Flags, expansions: Ints, closed: Ints, virtual: Ints,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for row in range(len(roots)):
        for slot in range(wanted[row]):
            node = roots[row]
            if closed[node] != OPEN:
                break
            if rule == GUMBEL and expanded[node]:
                node = gumbel_child(
                    node, seeds[row], considered, simulations, c_visit, c_scale,
                    first_child, next_sibling, expansions, q, prior, closed, virtual,
                )  # fmt: skip
            while expanded[node]:
                node = _best_child(
                    node, rule, c, first_child, next_sibling, visits, q, prior, closed, virtual
                )  # fmt: skip
            chosen[row, slot] = node
            _hold(node, parent, first_child, next_sibling, closed, virtual)


@njit(cache=True, error_model="numpy")
def _best_child(
    node: int, rule: int, c: float, first_child: Ints, next_sibling: Ints, visits: Ints, q: Floats, prior: Floats,
    closed: NDArray[Any], virtual: Ints,
) -> int:  # fmt: skip  # pragma: no cover  (compiled)
    """The open child of highest score, the first among equals. PUCT: Q + c p √N(s) / (1 + N); UCT: Q + c √(ln N(s) / N)
    where an unvisited child comes before all visited ones. An expansion in flight is a visit of VIRTUAL_VALUE."""
    total = float(visits[node] + virtual[node])
    scale = c * math.sqrt(total)
    best, best_score = NONE, -np.inf
    child = first_child[node]
    while child != NONE:
        if closed[child] == OPEN:
            n, value, out = float(visits[child]), q[child], virtual[child]
            if out > 0:
                value = (n * value + out * VIRTUAL_VALUE) / (n + out)
                n += out
            if rule != UCT:
                score = value + scale * prior[child] / (1.0 + n)
            elif n > 0:
                score = value + c * math.sqrt(math.log(total) / n)
            else:
                score = np.inf
            if best == NONE or score > best_score:
                best, best_score = child, score
        child = next_sibling[child]
    return best


@njit(cache=True)
def _hold(
    leaf: int, parent: Ints, first_child: Ints, next_sibling: Ints, closed: Ints, virtual: Ints
) -> None:  # pragma: no cover  (compiled)
    """A virtual loss from a leaf to its root; what has nothing open left below it closes until a result comes back."""
    closed[leaf] = IN_FLIGHT
    virtual[leaf] += 1
    shut = True
    node = parent[leaf]
    while node != NONE:
        virtual[node] += 1
        if shut:
            child = first_child[node]
            while child != NONE and closed[child] != OPEN:
                child = next_sibling[child]
            shut = child == NONE
            if shut:
                closed[node] = IN_FLIGHT
        node = parent[node]


# --- release ----------------------------------------------------------------------------------------------


@njit(cache=True)
def _release(
    leaves: Ints, done: bool, parent: Ints, first_child: Ints, next_sibling: Ints,
    terminal: Flags, expanded: Flags, expansions: Ints, closed: Ints, virtual: Ints,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for leaf in leaves:
        expanded[leaf] = done
        state = IN_FLIGHT
        node = leaf
        while node != NONE:
            virtual[node] -= 1
            expansions[node] += done
            # An open child is enough; only where the child is closed do its siblings matter.
            if state != OPEN:
                state = _closure(node, first_child, next_sibling, terminal, expanded, closed)
            closed[node] = state
            node = parent[node]


@njit(cache=True)
def _closure(
    node: int, first_child: Ints, next_sibling: Ints, terminal: Flags, expanded: Flags, closed: Ints
) -> int:  # pragma: no cover  (compiled)
    """What a node's `closed` must be, given its children's, if it is not in flight itself."""
    if terminal[node]:
        return EXHAUSTED
    if not expanded[node]:
        return OPEN
    result = EXHAUSTED
    child = first_child[node]
    while child != NONE and result != OPEN:
        result = min(result, closed[child])
        child = next_sibling[child]
    return result


# --- back up ----------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _set_value(
    node: int, rule: int, gamma: float, parent: Ints, first_child: Ints, next_sibling: Ints,
    visits: Ints, q: Floats, v: Floats, reward: Floats, returns: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    """V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a), 0 without a visit, and Q of the edge to the node (see `back_up`)."""
    total, weighted = 0, 0.0
    child = first_child[node]
    while child != NONE:
        total += visits[child]
        weighted += visits[child] * q[child] if rule == PAPER else returns[child]
        child = next_sibling[child]
    v[node] = weighted / total if total > 0 else 0.0
    if parent[node] == NONE:
        return
    if rule == PAPER or visits[node] == 0:
        q[node] = reward[node] + gamma * v[node]
    else:
        returns[node] = visits[node] * reward[node] + gamma * weighted
        q[node] = returns[node] / visits[node]


@njit(cache=True)
def _back_up(
    ends: Ints, rule: int, gamma: float, parent: Ints, first_child: Ints, next_sibling: Ints,
    visits: Ints, q: Floats, v: Floats, reward: Floats, returns: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for end in ends:
        node = end
        while node != NONE:
            visits[node] += 1
            _set_value(node, rule, gamma, parent, first_child, next_sibling, visits, q, v, reward, returns)
            node = parent[node]


@njit(cache=True)
def _refresh(
    nodes: Ints, rule: int, gamma: float, parent: Ints, first_child: Ints, next_sibling: Ints,
    visits: Ints, q: Floats, v: Floats, reward: Floats, returns: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for start in nodes:
        node = start
        while node != NONE:
            _set_value(node, rule, gamma, parent, first_child, next_sibling, visits, q, v, reward, returns)
            node = parent[node]


@njit(cache=True)
def _recompute(
    rule: int, gamma: float, parent: Ints, first_child: Ints, next_sibling: Ints,
    visits: Ints, q: Floats, v: Floats, reward: Floats, returns: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for node in range(len(parent) - 1, -1, -1):  # children come after their parents
        _set_value(node, rule, gamma, parent, first_child, next_sibling, visits, q, v, reward, returns)


# --- priors -----------------------------------------------------------------------------------------------


@njit(cache=True)
def _set_priors(
    parents: Ints, normalised: bool, first_child: Ints, next_sibling: Ints, samples: Ints, mass: Floats, prior: Floats
) -> None:  # pragma: no cover  (compiled)
    for node in parents:
        total, drawn = 0.0, 0
        child = first_child[node]
        while child != NONE:
            total += mass[child]
            drawn += samples[child]
            child = next_sibling[child]
        child = first_child[node]
        while child != NONE:
            if not normalised:
                prior[child] = mass[child]
            elif total > 0.0:
                prior[child] = mass[child] / total
            else:
                prior[child] = samples[child] / drawn
            child = next_sibling[child]

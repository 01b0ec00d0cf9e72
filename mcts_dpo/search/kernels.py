"""The loops of the search over a forest's arrays, compiled: select, release, back up, normalise priors.

In: columns of a `Forest` (see `forest.NODE_FIELDS` for dtypes and units), changed in place. Out: node ids. The
kernels know no tokens, texts, engines or rewards; each call treats any number of trees. Formulas: Xie et al.
2024 (arXiv 2405.00451), section 3.1; AlphaZero (Silver et al. 2017) for `mean`; Kocsis & Szepesvári 2006 for UCT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcts_dpo.search.forest import EXHAUSTED, IN_FLIGHT, NONE, OPEN
from mcts_dpo.search.gumbel import gumbel_child

if TYPE_CHECKING:
    from mcts_dpo.search.forest import Forest

PUCT, UCT, GUMBEL = 0, 1, 2
PAPER, MEAN = 0, 1
VIRTUAL_VALUE = -1.0
"""What each expansion in flight counts for until its result is known: one visit that ended wrong."""

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gumbel:
    """What selection by GUMBEL needs (see gumbel.py): a seed for each tree, [T] ints below 2⁶³; the most children of a
    root that are considered; the simulations shared out among them; c_visit and c_scale of σ."""

    seeds: Ints
    considered: int
    simulations: int
    c_visit: float
    c_scale: float


def select(
    forest: Forest,
    trees: Ints,
    wanted: Ints,
    rule: int,
    c: float,
    *,
    roots: Ints | None = None,
    gumbel: Gumbel | None = None,
    root_twice: bool = False,
) -> NDArray[np.int64]:
    """For each tree up to `wanted` leaves to expand, best first; each carries a virtual loss and is in flight.

    trees: [T] tree indices, each at most once. wanted: [T] ≥ 0. rule: PUCT, UCT or GUMBEL (then with `gumbel`: at the
    root; below it PUCT), with constant c ≥ 0. roots: [T] where to start, None: at the trees' roots. root_twice: the
    root counts one visit more (see `FaithfulSettings`).
    Returns [T, max(wanted)] node ids, padded with -1 where a tree has no further leaf that is neither exhausted
    nor in flight. Ties go to the child that was sampled first.
    """
    starts = np.array([forest.trees[tree].root for tree in trees] if roots is None else roots, np.int64)
    chosen = np.full((len(starts), int(wanted.max(initial=0))), NONE, np.int64)
    g = gumbel or Gumbel(np.zeros(len(starts), np.int64), 1, 1, 0.0, 0.0)
    f = forest
    _select(
        starts, np.asarray(wanted, np.int64), rule, c, chosen, root_twice,
        np.asarray(g.seeds, np.int64), g.considered, g.simulations, g.c_visit, g.c_scale,
        f.parent, f.first_child, f.next_sibling, f.visits, f.expansions, f.q, f.prior, f.expanded, f.closed, f.virtual,
    )  # fmt: skip
    return chosen


def hold(forest: Forest, leaf: int) -> None:
    """What `select` does to a leaf that it gives out: a virtual loss, and in flight."""
    f = forest
    _hold(leaf, f.parent, f.first_child, f.next_sibling, f.closed, f.virtual)


def release(forest: Forest, leaves: Ints, expanded: bool = True) -> None:
    """Take the virtual losses of `leaves` [L] back; mark them expanded (or, after a failure, not), count that upwards,
    and open or close the paths above them accordingly."""
    f = forest
    _release(np.asarray(leaves, np.int64), expanded, f.parent, f.first_child, f.next_sibling, f.terminal, f.expansions,
             f.expanded, f.closed, f.virtual)  # fmt: skip


def back_up(
    forest: Forest,
    ends: Ints,
    rule: int,
    gamma: float,
    *,
    root_twice: bool = False,
    unvisited_as_one: bool = False,
) -> None:
    """One visit for each entry of `ends` [E] (a node may occur more than once), all the way to its root.

    PAPER: Q(s,a) = R(s') + γ V(s'), V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a), from the children as they now are; after
    the call this holds wherever an entry passed. MEAN: Q(s,a) = mean over the visits of the edge of the return
    G = R(s') + γ G' seen by each, with G' = 0 beyond the last node; V as above. Rewards are read, not made.
    root_twice, unvisited_as_one: see `FaithfulSettings`.
    """
    f = forest
    _back_up(np.asarray(ends, np.int64), rule, gamma, root_twice, unvisited_as_one, f.parent, f.first_child,
             f.next_sibling, f.reward, f.visits, f.q, f.v, f.returns)  # fmt: skip


def refresh(forest: Forest, nodes: Ints, rule: int, gamma: float, *, unvisited_as_one: bool = False) -> None:
    """V and Q from `nodes` [N] up to their roots as the children now are, without a visit (rules as in `back_up`)."""
    f = forest
    _refresh(np.asarray(nodes, np.int64), rule, gamma, unvisited_as_one, f.parent, f.first_child, f.next_sibling,
             f.reward, f.visits, f.q, f.v)  # fmt: skip


def set_priors(forest: Forest, parents: Ints, normalised: bool) -> None:
    """p(a|s) of all children of `parents` [P] from their masses: divided by the siblings' sum, or as they are.

    Every child has been sampled. Where all masses are 0 (vanishing probability), the samples' shares stand in.
    """
    f = forest
    _set_priors(np.asarray(parents, np.int64), normalised, f.first_child, f.next_sibling, f.mass, f.samples, f.prior)


@njit(cache=True)
def _score(
    rule: int, c: float, parent_visits: float, visits: float, virtual: float, q: float, prior: float
) -> float:  # pragma: no cover  (compiled)
    """PUCT or UCT of one child. Expansions in flight count as visits of VIRTUAL_VALUE each.

    parent_visits: what is taken of N(s) once for all its children: its root for PUCT, its logarithm for UCT.
    """
    n = visits + virtual
    if virtual > 0:
        q = (visits * q + virtual * VIRTUAL_VALUE) / n
    if rule != UCT:
        return q + c * prior * parent_visits / (1.0 + n)
    return q + c * math.sqrt(parent_visits / n) if n > 0 else np.inf


@njit(cache=True)
def _closure(
    node: int, first_child: Ints, next_sibling: Ints, terminal: Bools, expanded: Bools, closed: Ints
) -> int:  # pragma: no cover  (compiled)
    """What a node's `closed` must be, given its children's, if it is not in flight itself."""
    if terminal[node]:
        return EXHAUSTED
    if not expanded[node]:
        return OPEN
    result = EXHAUSTED
    child = first_child[node]
    while child != NONE:
        result = min(result, closed[child])
        child = next_sibling[child]
    return result


@njit(cache=True)
def _select(
    roots: Ints, wanted: Ints, rule: int, c: float, chosen: Ints, root_twice: bool,
    seeds: Ints, considered: int, simulations: int, c_visit: float, c_scale: float,
    parent: Ints, first_child: Ints, next_sibling: Ints, visits: Ints, expansions: Ints, q: Floats, prior: Floats,
    expanded: Bools, closed: Ints, virtual: Ints,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for row in range(len(roots)):
        for slot in range(wanted[row]):
            node = roots[row]
            if closed[node] != OPEN:
                break
            if rule == GUMBEL and expanded[node]:
                node = gumbel_child(
                    node, seeds[row], considered, simulations, c_visit, c_scale,
                    first_child, next_sibling, expansions, virtual, q, prior, closed,
                )  # fmt: skip
            while expanded[node]:
                total = float(visits[node] + virtual[node])
                if root_twice and parent[node] == NONE:
                    total += 1.0
                total = math.log(total) if rule == UCT else math.sqrt(total)
                best, best_score = NONE, -np.inf
                child = first_child[node]
                while child != NONE:
                    if closed[child] == OPEN:
                        score = _score(rule, c, total, visits[child], virtual[child], q[child], prior[child])
                        if best == NONE or score > best_score:
                            best, best_score = child, score
                    child = next_sibling[child]
                node = best
            chosen[row, slot] = node
            _hold(node, parent, first_child, next_sibling, closed, virtual)


@njit(cache=True)
def _hold(
    leaf: int, parent: Ints, first_child: Ints, next_sibling: Ints, closed: Ints, virtual: Ints
) -> None:  # pragma: no cover  (compiled)
    closed[leaf] = IN_FLIGHT
    virtual[leaf] += 1
    # Upwards: everything that has nothing open left below closes until a result comes back.
    node = parent[leaf]
    shut = True
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


@njit(cache=True)
def _release(
    leaves: Ints, done: bool, parent: Ints, first_child: Ints, next_sibling: Ints, terminal: Bools, expansions: Ints,
    expanded: Bools, closed: Ints, virtual: Ints,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for leaf in leaves:
        expanded[leaf] = done
        node = leaf
        while node != NONE:
            virtual[node] -= 1
            expansions[node] += done
            closed[node] = _closure(node, first_child, next_sibling, terminal, expanded, closed)
            node = parent[node]


@njit(cache=True)
def _value(
    node: int, least: int, first_child: Ints, next_sibling: Ints, visits: Ints, q: Floats
) -> float:  # pragma: no cover  (compiled)
    """V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a), with N no less than `least`; 0 if that leaves nothing."""
    weighted, total = 0.0, 0
    child = first_child[node]
    while child != NONE:
        n = max(least, visits[child])
        weighted += n * q[child]
        total += n
        child = next_sibling[child]
    return weighted / total if total > 0 else 0.0


@njit(cache=True)
def _back_up(
    ends: Ints, rule: int, gamma: float, root_twice: bool, unvisited_as_one: bool,
    parent: Ints, first_child: Ints, next_sibling: Ints, reward: Floats, visits: Ints, q: Floats, v: Floats,
    returns: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for end in ends:
        node = end
        seen = 0.0
        while node != NONE:
            visits[node] += 1
            if root_twice and parent[node] == NONE:
                visits[node] += 1
            v[node] = _value(node, 1 if unvisited_as_one else 0, first_child, next_sibling, visits, q)
            if parent[node] != NONE:
                if rule == MEAN:
                    seen = reward[node] + gamma * seen
                    returns[node] += seen
                    q[node] = returns[node] / visits[node]
                else:
                    q[node] = reward[node] + gamma * v[node]
            node = parent[node]


@njit(cache=True)
def _refresh(
    nodes: Ints, rule: int, gamma: float, unvisited_as_one: bool,
    parent: Ints, first_child: Ints, next_sibling: Ints, reward: Floats, visits: Ints, q: Floats, v: Floats,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    for start in nodes:
        node = start
        while node != NONE:
            v[node] = _value(node, 1 if unvisited_as_one else 0, first_child, next_sibling, visits, q)
            if parent[node] != NONE and (rule == PAPER or visits[node] == 0):
                q[node] = reward[node] + gamma * v[node]
            node = parent[node]


@njit(cache=True)
def _set_priors(
    parents: Ints, normalised: bool, first_child: Ints, next_sibling: Ints, mass: Floats, samples: Ints, prior: Floats
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

"""The loops of the search over a forest's arrays, compiled: select, release, back up, normalise priors.

In: the records of a `Forest` (see `forest.NODE_FIELDS` for dtypes and units), changed in place. Out: node ids. The
kernels know no tokens, texts, engines or rewards; each call treats any number of trees. Formulas: Xie et al.
2024 (arXiv 2405.00451), section 2.1; AlphaZero (Silver et al. 2017) for `mean`; Kocsis & Szepesvári 2006 for UCT.

A large forest does not fit a cache, so the time is that of the lines that are read. Trees move in groups, level by
level, each one's next nodes asked for (records.py) while the others are worked on. The results are those of one path
after the other: trees share nothing, and what is added up within one tree is added in the order of the entries.
(Numba's cache on disk notices a change of this file only: `touch` it after one of records.py or gumbel.py.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcts_dpo.search.gumbel import gumbel_child
from mcts_dpo.search.records import Records, next_sibling, prefetch, prefetch_edge, prefetch_family, square_root
from mcts_dpo.search.tree import ELSEWHERE, EXHAUSTED, IN_FLIGHT, NEXT_ROW, NONE, OPEN

if TYPE_CHECKING:
    from mcts_dpo.search.tree import Forest

PUCT, UCT, GUMBEL = 0, 1, 2
PAPER, MEAN = 0, 1
VIRTUAL_VALUE = -1.0
"""What each expansion in flight counts for until its result is known: one visit that ended wrong."""

GROUP = 16
"""Paths that move together: enough that a line has come when its turn does, few enough that all stay in the cache."""

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]


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
        starts, np.asarray(wanted, np.int64), rule, c, chosen, roots is not None, forest.height,
        np.asarray(g.seeds, np.int64), g.considered, g.simulations, g.c_visit, g.c_scale, forest.edges, forest.records,
    )  # fmt: skip
    return chosen


def hold(forest: Forest, leaf: int) -> None:
    """What `select` does to a leaf that it gives out: a virtual loss, and in flight."""
    _hold(leaf, forest.edges, forest.records)


def release(forest: Forest, leaves: Ints, expanded: bool = True) -> None:
    """Take the virtual losses of `leaves` [L] back; mark them expanded (or, after a failure, not), count that upwards,
    and open or close the paths above them accordingly."""
    nothing = np.empty(0, np.int64)
    released = np.asarray(leaves, np.int64)
    _settle(nothing, released, expanded, MEAN, 0.0, forest.height, forest.edges, forest.records)


def back_up(
    forest: Forest,
    ends: Ints,
    rule: int,
    gamma: float,
    *,
    leaves: Ints | None = None,
    expanded: bool = True,
) -> None:
    """One visit for each entry of `ends` [E] (a node may occur more than once), all the way to its root.

    PAPER: Q(s,a) = R(s') + γ V(s'), V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a), from the children as they now are; after
    the call this holds wherever an entry passed. MEAN: Q(s,a) = mean over the visits of the edge of the return
    G = R(s') + γ G' seen by each, with G' = 0 beyond the last node; V as above, which here is the mean of the returns
    that came up from the children, and is kept as a running mean. Rewards are read, not made.
    leaves, expanded: what `release` is to do in the same pass; a large forest is then read once.
    """
    released = np.empty(0, np.int64) if leaves is None else np.asarray(leaves, np.int64)
    _settle(np.asarray(ends, np.int64), released, expanded, rule, gamma, forest.height, forest.edges,
            forest.records)  # fmt: skip


def refresh(forest: Forest, nodes: Ints, rule: int, gamma: float) -> None:
    """V and Q from `nodes` [N] up to their roots as the children now are, without a visit (rules as in `back_up`)."""
    _refresh(np.asarray(nodes, np.int64), rule, gamma, forest.edges, forest.records)


def set_priors(forest: Forest, parents: Ints, normalised: bool) -> None:
    """p(a|s) of all children of `parents` [P] from their masses: divided by the siblings' sum, or as they are.

    Every child has been sampled. Where all masses are 0 (vanishing probability), the samples' shares stand in.
    """
    _set_priors(np.asarray(parents, np.int64), normalised, forest.mass, forest.edges, forest.records)


@njit(cache=True, error_model="numpy", inline="always")
def _effective(edge: Any) -> tuple[float, float]:  # pragma: no cover  (compiled)
    """N and Q of an edge, an expansion in flight counted as a visit of VIRTUAL_VALUE."""
    n, q = float(edge.visits), edge.q
    if edge.virtual > 0:
        q = (n * q + edge.virtual * VIRTUAL_VALUE) / (n + edge.virtual)
        n += edge.virtual
    return n, q


@njit(cache=True, error_model="numpy", inline="always")
def _best_puct(
    eldest: int, total: float, c: float, edges: Records, records: Records
) -> tuple[Any, int]:  # pragma: no cover  (compiled)
    """The open sibling of highest Q + c p √N(s) / (1 + N), the first among equals; and how many are open.

    total: N(s). The innermost loop of all: unsigned, since indices from the end are looked for otherwise, and without
    a branch on the score, since which sibling is best cannot be guessed.
    """
    scale = c * square_root(total)
    child = np.uint64(eldest)
    best, best_score, opened = child, -np.inf, 0
    while True:
        edge = edges[child]
        n, q = _effective(edge)
        score = q + scale * edge.prior / (1.0 + n)
        is_open = edge.closed == OPEN
        opened += is_open
        better = is_open & (score > best_score)
        best = child if better else best
        best_score = score if better else best_score
        if edge.sibling == NEXT_ROW:
            child += np.uint64(1)
        elif edge.sibling == ELSEWHERE:
            child = np.uint64(records[child].next_sibling)
        else:
            break
    return np.int64(best), opened


@njit(cache=True, error_model="numpy")
def _best_uct(
    eldest: int, total: float, c: float, edges: Records, records: Records
) -> tuple[int, int]:  # pragma: no cover  (compiled)
    """The same for Q + c √(ln N(s) / N); an unvisited sibling comes before all visited ones."""
    best, best_score, opened = NONE, -np.inf, 0
    child = eldest
    while child != NONE:
        if edges[child].closed == OPEN:
            n, q = _effective(edges[child])
            score = q + c * math.sqrt(math.log(total) / n) if n > 0 else np.inf
            if best == NONE or score > best_score:
                best, best_score = child, score
            opened += 1
        child = next_sibling(child, edges, records)
    return best, opened


@njit(cache=True, error_model="numpy")
def _select(
    roots: Ints, wanted: Ints, rule: int, c: float, chosen: Ints, inside: bool, height: int,
    seeds: Ints, considered: int, simulations: int, c_visit: float, c_scale: float, edges: Records, records: Records,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    path = np.empty((GROUP, height + 1), np.int64)
    opened = np.empty((GROUP, height + 1), np.int64)
    depth = np.empty(GROUP, np.int64)
    moving = np.empty(GROUP, np.int64)
    for first in range(0, len(roots), GROUP):
        group = min(GROUP, len(roots) - first)
        for row in range(group):
            prefetch(edges, roots[first + row])
        most = 0
        for row in range(group):
            most = max(most, wanted[first + row])
            if edges[roots[first + row]].first_child != NONE:
                prefetch_family(edges, edges[roots[first + row]].first_child)
        for slot in range(most):
            left = 0
            for row in range(group):
                root = roots[first + row]
                depth[row], path[row, 0] = -1, root
                if slot < wanted[first + row] and edges[root].closed == OPEN:
                    depth[row] = 0
                    edges[root].virtual += 1
                    if edges[root].expanded:
                        moving[left] = row
                        left += 1
            level = 0
            while left > 0:
                still = 0
                for place in range(left):
                    row = moving[place]
                    node = path[row, level]
                    total = edges[node].visits + edges[node].virtual - 1.0  # without this visit
                    eldest = edges[node].first_child
                    if rule == UCT:
                        best, count = _best_uct(eldest, total, c, edges, records)
                    else:
                        best, count = _best_puct(eldest, total, c, edges, records)
                    if level == 0 and rule == GUMBEL:
                        best = gumbel_child(
                            node, seeds[first + row], considered, simulations, c_visit, c_scale, edges, records
                        )
                    opened[row, level] = count
                    path[row, level + 1] = best
                    depth[row] = level + 1
                    edges[best].virtual += 1
                    if edges[best].expanded:
                        prefetch_family(edges, edges[best].first_child)
                        moving[still] = row
                        still += 1
                left = still
                level += 1
            for row in range(group):
                if depth[row] >= 0:
                    leaf = path[row, depth[row]]
                    chosen[first + row, slot] = leaf
                    edges[leaf].closed = IN_FLIGHT
                    # Upwards: what has nothing open left below it closes until a result comes back.
                    above = depth[row] - 1
                    while above >= 0 and opened[row, above] == 1:
                        edges[path[row, above]].closed = IN_FLIGHT
                        above -= 1
                    if inside:  # the search may start below the tree's root: on, above there
                        _hold_above(records[path[row, 0]].parent, above < 0, edges, records)


@njit(cache=True)
def _hold(leaf: int, edges: Records, records: Records) -> None:  # pragma: no cover  (compiled)
    edges[leaf].closed = IN_FLIGHT
    edges[leaf].virtual += 1
    _hold_above(records[leaf].parent, True, edges, records)


@njit(cache=True)
def _hold_above(node: int, shut: bool, edges: Records, records: Records) -> None:  # pragma: no cover  (compiled)
    """A virtual loss from `node` to its root; shut: the child below has just closed."""
    while node != NONE:
        edges[node].virtual += 1
        if shut:
            child = edges[node].first_child
            while child != NONE and edges[child].closed != OPEN:
                child = next_sibling(child, edges, records)
            shut = child == NONE
            if shut:
                edges[node].closed = IN_FLIGHT
        node = records[node].parent


@njit(cache=True)
def _closure(node: int, edges: Records, records: Records) -> int:  # pragma: no cover  (compiled)
    """What a node's `closed` must be, given its children's, if it is not in flight itself."""
    if records[node].terminal:
        return EXHAUSTED
    if not edges[node].expanded:
        return OPEN
    result = EXHAUSTED
    child = edges[node].first_child
    while child != NONE and result != OPEN:
        result = min(result, edges[child].closed)
        child = next_sibling(child, edges, records)
    return result


@njit(cache=True)
def _release(leaf: int, done: bool, edges: Records, records: Records) -> None:  # pragma: no cover  (compiled)
    edges[leaf].expanded = done
    state = IN_FLIGHT
    node = leaf
    while node != NONE:
        row = np.uint64(node)
        edge, record = edges[row], records[row]
        edge.virtual -= 1
        record.expansions += done
        # An open child is enough; only where the child is closed do its siblings matter.
        if state != OPEN:
            state = _closure(node, edges, records)
        edge.closed = state
        node = record.parent


@njit(cache=True)
def _value(node: int, edges: Records, records: Records) -> float:  # pragma: no cover  (compiled)
    """V(s) = Σ N(s,a) Q(s,a) / Σ N(s,a); 0 without a visit."""
    weighted, total = 0.0, 0
    child = edges[node].first_child
    while child != NONE:
        n = edges[child].visits
        weighted += n * edges[child].q
        total += n
        child = next_sibling(child, edges, records)
    return weighted / total if total > 0 else 0.0


@njit(cache=True, error_model="numpy")
def _back_up(
    path: Ints, rule: int, gamma: float, edges: Records, records: Records
) -> None:  # pragma: no cover  (compiled)
    """One visit of one path, from its end (the first) to its root (the last)."""
    seen = 0.0
    for place, node in enumerate(path):
        row = np.uint64(node)  # never an index from the end
        edge, record, root = edges[row], records[row], place == len(path) - 1
        edge.visits += 1
        record.below += place > 0
        if rule == PAPER:
            record.v = _value(node, edges, records)
        elif place > 0:
            record.v += (seen - record.v) / record.below
        if not root:
            if rule == MEAN:
                seen = record.reward + gamma * seen
                record.returns += seen
                edge.q = record.returns / edge.visits
            else:
                edge.q = record.reward + gamma * record.v


@njit(cache=True)
def _settle(
    ends: Ints, leaves: Ints, done: bool, rule: int, gamma: float, height: int, edges: Records, records: Records,
) -> None:  # fmt: skip  # pragma: no cover  (compiled)
    """Back up from `ends` and release `leaves`: neither reads what the other changes, so they may take turns."""
    turns = max(-(-len(ends) // GROUP), -(-len(leaves) // GROUP))
    families = rule == PAPER
    paths = np.empty((GROUP, height + 1), np.int64)
    steps = np.empty(GROUP, np.int64)
    for turn in range(turns):
        some = ends[len(ends) * turn // turns : len(ends) * (turn + 1) // turns]
        _ascend(some, families, paths, steps, edges, records)
        for place in range(len(some)):
            path = paths[place, : steps[place]]
            _back_up(path, rule, gamma, edges, records)
        some = leaves[len(leaves) * turn // turns : len(leaves) * (turn + 1) // turns]
        if len(ends) == 0:  # else the paths are in the cache: samples end where they were drawn, or below
            _ascend(some, False, paths, steps, edges, records)
        for leaf in some:
            _release(leaf, done, edges, records)


@njit(cache=True)
def _ascend(
    nodes: Ints, families: bool, paths: Ints, steps: Ints, edges: Records, records: Records
) -> None:  # pragma: no cover  (compiled)
    """The paths from up to GROUP nodes to their roots, and their lengths; brings them into the cache, and the families
    below them too if these are asked for."""
    left = len(nodes)
    moving = np.arange(left)
    for place in range(left):
        paths[place, 0] = nodes[place]
        prefetch(records, nodes[place])
        prefetch_edge(edges, nodes[place])
    level = 0
    while left > 0:
        still = 0
        for turn in range(left):
            place = moving[turn]
            node = paths[place, level]
            steps[place] = level + 1
            if families and edges[node].first_child != NONE:
                prefetch_family(edges, edges[node].first_child)
            above = records[node].parent
            if above != NONE:
                prefetch(records, above)
                prefetch_edge(edges, above)
                paths[place, level + 1] = above
                moving[still] = place
                still += 1
        left = still
        level += 1


@njit(cache=True)
def _refresh(
    nodes: Ints, rule: int, gamma: float, edges: Records, records: Records
) -> None:  # pragma: no cover  (compiled)
    for start in nodes:
        node = start
        while node != NONE:
            records[node].v = _value(node, edges, records)
            if records[node].parent != NONE and (rule == PAPER or edges[node].visits == 0):
                edges[node].q = records[node].reward + gamma * records[node].v
            node = records[node].parent


@njit(cache=True)
def _set_priors(
    parents: Ints, normalised: bool, mass: Floats, edges: Records, records: Records
) -> None:  # pragma: no cover  (compiled)
    for node in parents:
        total, drawn = 0.0, 0
        child = edges[node].first_child
        while child != NONE:
            total += mass[child]
            drawn += records[child].samples
            child = next_sibling(child, edges, records)
        child = edges[node].first_child
        while child != NONE:
            if not normalised:
                edges[child].prior = mass[child]
            elif total > 0.0:
                edges[child].prior = mass[child] / total
            else:
                edges[child].prior = records[child].samples / drawn
            child = next_sibling(child, edges, records)

"""Chooses the child of the root that the next simulation goes to, by Gumbel selection with sequential halving.

In: arrays of a forest. Out: the node id of a child. The functions are compiled with Numba.

Every child of the root draws g ~ Gumbel(0) once. The simulations are divided among the `considered` children of highest
g + log p. In each phase, the worse half of these children by g + log p + σ(q) is dropped. Here
σ(q) = (c_visit + max N) · c_scale · q. The q of the siblings are scaled to [0, 1], and N counts simulations. Below the
root, the search selects by PUCT.

Source: Danihelka et al. 2022, "Policy improvement by planning with Gumbel" (ICLR), algorithms 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcts_dpo.search.tree import NONE, OPEN

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@njit(cache=True)
def gumbel_noise(seed: int, place: int) -> float:  # pragma: no cover  (compiled)
    """Draw from Gumbel(0) for the child with index `place` (from 0) among its siblings.

    The generator is splitmix64 (Steele et al. 2014). The same seed and place always give the same draw.
    """
    z = np.uint64(seed) + np.uint64(place + 1) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    uniform = (float(z >> np.uint64(11)) + 0.5) / 9007199254740992.0  # 2⁵³
    return -math.log(-math.log(uniform))


@njit(cache=True)
def considered_visits(done: int, considered: int, simulations: int) -> int:  # pragma: no cover  (compiled)
    """The number of simulations that a child must have, to be considered for simulation number `done` (from 0).

    Sequential halving (Karnin et al. 2013) divides `simulations` among `considered` children, in ⌈log₂ considered⌉
    phases. In each phase, every remaining child gets the same number of simulations (at least one), in turn. Then half
    of the children remain, but at least two.
    """
    if considered <= 1:
        return done
    phases = math.ceil(math.log2(considered))
    at, visits, left = 0, 0, considered
    while True:
        for _ in range(max(1, simulations // (phases * left))):
            if done < at + left:
                return visits
            at += left
            visits += 1
        left = max(2, left // 2)


@njit(cache=True)
def gumbel_child(
    root: int, seed: int, most: int, simulations: int, c_visit: float, c_scale: float,
    first_child: Ints, next_sibling: Ints, expansions: Ints, q: Floats, prior: Floats, closed: Ints, virtual: Ints,
) -> int:  # fmt: skip  # pragma: no cover  (compiled)
    """Choose the open child of an expanded root to simulate next. Returns its node id, or -1 if no child is open.

    The schedule asks for a child with a certain number of simulations (see `considered_visits`). If no open child has
    this number, because subtrees can be exhausted, the best open child is returned.

    seed: of the root's draws. most: most children considered. simulations: number that is divided among them.
    c_visit, c_scale: constants of σ.
    """
    count, done, top = 0, 0, 0
    low, high = np.inf, -np.inf
    child = first_child[root]
    while child != NONE:
        n = expansions[child] + virtual[child]
        count += 1
        done += n
        top = max(top, n)
        low, high = min(low, q[child]), max(high, q[child])
        child = next_sibling[child]
    wanted = considered_visits(done, min(most, count), simulations)
    best, best_score, best_considered = NONE, -np.inf, False
    place = 0
    child = first_child[root]
    while child != NONE:
        if closed[child] == OPEN:
            scaled = (q[child] - low) / max(high - low, 1e-8)
            score = gumbel_noise(seed, place) + math.log(max(prior[child], 1e-300))
            score += (c_visit + top) * c_scale * scaled
            fits = expansions[child] + virtual[child] == wanted
            if best == NONE or (fits and not best_considered) or (fits == best_considered and score > best_score):
                best, best_score, best_considered = child, score, fits
        child = next_sibling[child]
        place += 1
    return best

"""Chooses the answer of a tree without a reference answer (solve mode).

In: a forest and a tree. Out: an answer, the solution that leads to it, and its weight in the vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mcts_dpo.search.tree import Forest
from verifiers import grouped

Rule = Literal["weighted", "majority", "best_q", "most_visited"]


@dataclass(frozen=True, slots=True)
class TreeVote:
    """The answer of a tree, from the vote of its solutions or the best path.

    answer: as its best solution words it; None if no solution has an answer.
    weight: "weighted": Σ visits × value of its cluster; "majority": samples; "best_q", "most_visited": the Q and
            the visits of the first step of the path.
    leaf:   node id where the returned solution ends; -1 without an answer.
    path:   node ids from the root to `leaf`; empty without an answer.
    undecided: pairs of clusters that could not be compared in the time of a vote; they stood apart.
    """

    answer: str | None
    weight: float
    leaf: int
    path: tuple[int, ...]
    undecided: int = 0


def tree_answer(forest: Forest, tree: int, rule: Rule = "weighted") -> TreeVote:
    """The answer of one tree.

    weighted:     finished solutions (see `voting_leaves`) are clustered by mathematical equality of their answers; a
                  cluster weighs Σ visits × value (see `values`), the heaviest wins.
    majority:     the same with the samples drawn: maj@k.
    best_q:       from the root always to the child of highest Q (then of more visits).
    most_visited: from the root always to the child of most visits (then of higher Q).
    Paths lead only through nodes from which an answer has been reached. Ties of clusters go to the higher mean
    log-probability per token (averaged over their solutions), then to the one found first. The solution returned for a
    cluster is that of highest value, then of most visits, then of highest mean log-probability.
    """
    leaves = voting_leaves(forest, tree)
    if not leaves:
        return TreeVote(None, 0.0, -1, ())
    if rule in ("best_q", "most_visited"):
        return _descend(forest, forest.trees[tree].root, leaves, rule)
    value = dict(zip(leaves, values(forest, leaves), strict=True))
    fluency = {leaf: mean_logprob(forest, leaf) for leaf in leaves}
    vote = grouped([forest.answers[node] for node in leaves])
    clusters = [[leaves[i] for i in members] for members in vote.classes]

    def weight(cluster: Sequence[int]) -> float:
        if rule == "majority":
            return float(sum(forest.samples[leaf] for leaf in cluster))
        return float(sum(forest.visits[leaf] * value[leaf] for leaf in cluster))

    # max() keeps the first of equals, and clusters come in the order of their first solution.
    best = max(clusters, key=lambda cluster: (weight(cluster), np.mean([fluency[leaf] for leaf in cluster])))
    leaf = max(best, key=lambda leaf: (value[leaf], forest.visits[leaf], fluency[leaf]))
    return TreeVote(forest.answers[leaf], weight(best), leaf, tuple(forest.path(leaf)), vote.undecided)


def voting_leaves(forest: Forest, tree: int) -> list[int]:
    """The ends of the solutions that have a say: those with an answer that go through the node to which the search has
    moved (`advance: step`; else all)."""
    answered = [int(node) for node in forest.nodes(tree) if forest.answers[node] is not None]
    moves = forest.trees[tree].moves
    return [node for node in answered if moves[-1] in forest.path(node)] if moves else answered


def values(forest: Forest, leaves: Sequence[int]) -> list[float]:
    """How much one visit of each finished solution counts, ≥ 0.

    The reward of the solution, shifted up by 1 if any outcome is known (O then is -1 or +1; unknown outcomes are 0 and
    need no shift). Where all come out as 0, nothing tells the solutions apart (no self-evaluation was asked): then
    each counts 1, and the vote is by visits.
    """
    known = any(forest.outcome[leaf] != 0 for leaf in leaves)
    found = [float(forest.reward[leaf]) + known for leaf in leaves]
    return found if any(found) else [1.0] * len(found)


def mean_logprob(forest: Forest, node: int) -> float:
    """Mean log π per token (nats) of the solution up to `node`."""
    path = forest.path(node)
    return float(forest.logprob[path].sum() / forest.length[path].sum())


def _descend(forest: Forest, root: int, leaves: Sequence[int], rule: Rule) -> TreeVote:
    leads = {node for leaf in leaves for node in forest.path(leaf)}

    def rank(child: int) -> tuple[float, float]:
        q, visits = float(forest.q[child]), float(forest.visits[child])
        return (q, visits) if rule == "best_q" else (visits, q)

    path = [root]
    while children := [child for child in forest.children(path[-1]) if child in leads]:
        path.append(max(children, key=rank))
    first = path[1]
    weight = float(forest.q[first] if rule == "best_q" else forest.visits[first])
    return TreeVote(forest.answers[path[-1]], weight, path[-1], tuple(path))

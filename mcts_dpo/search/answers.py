"""Chooses the final answer of a search tree by a vote of its solutions. No reference answer is needed (solve mode).

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
    """The answer of a tree, from the vote of its solutions or from its best path.

    answer: the answer, in the words of its best solution. None if no solution has an answer.
    weight: depends on the rule. "weighted": Σ visits × value of the answer's cluster. "majority": the number of
            samples of the cluster. "best_q": the Q of the first step of the path. "most_visited": its visits.
    leaf:   node id where the returned solution ends. -1 without an answer.
    path:   node ids from the root to `leaf`. Empty without an answer.
    undecided: number of pairs of clusters that could not be compared in the time of a vote. They stay separate.
    """

    answer: str | None
    weight: float
    leaf: int
    path: tuple[int, ...]
    undecided: int = 0


def tree_answer(forest: Forest, tree: int, rule: Rule = "weighted") -> TreeVote:
    """Choose the answer of one tree by a rule.

    weighted:     group finished solutions (see `voting_leaves`) into clusters whose answers are mathematically equal.
                  A cluster weighs Σ visits × value (see `values`). The heaviest cluster wins.
    majority:     the same, but a cluster weighs the number of its samples: maj@k.
    best_q:       follow the child of highest Q from the root on. Ties go to the child with more visits.
    most_visited: follow the child of most visits from the root on. Ties go to the child with the higher Q.

    Paths only lead through nodes from which an answer was reached. Ties of clusters go to the higher mean
    log-probability per token (averaged over the cluster's solutions), then to the cluster found first. The returned
    solution of a cluster is the one of highest value, then of most visits, then of highest mean log-probability.
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

    # max() keeps the first of equals, and clusters are in the order of their first solution.
    best = max(clusters, key=lambda cluster: (weight(cluster), np.mean([fluency[leaf] for leaf in cluster])))
    leaf = max(best, key=lambda leaf: (value[leaf], forest.visits[leaf], fluency[leaf]))
    return TreeVote(forest.answers[leaf], weight(best), leaf, tuple(forest.path(leaf)), vote.undecided)


def voting_leaves(forest: Forest, tree: int) -> list[int]:
    """The node ids where the voting solutions end. A solution votes if it has an answer.

    With `advance: step`, only solutions through the node to which the search moved last vote.
    """
    answered = [int(node) for node in forest.nodes(tree) if forest.answers[node] is not None]
    moves = forest.trees[tree].moves
    return [node for node in answered if moves[-1] in forest.path(node)] if moves else answered


def values(forest: Forest, leaves: Sequence[int]) -> list[float]:
    """The weight ≥ 0 of one visit of each finished solution, in the order of `leaves`.

    It is R of the solution. If any outcome is known, 1 is added: a known outcome O is -1 or +1. Unknown
    outcomes are 0 and need no shift. If all weights are 0 (for example, if no self-evaluation was asked), nothing
    distinguishes the solutions. Then each weight is 1, and the vote is by visits.
    """
    known = any(forest.outcome[leaf] != 0 for leaf in leaves)
    found = [float(forest.state_reward[leaf]) + known for leaf in leaves]
    return found if any(found) else [1.0] * len(found)


def all_equal(forest: Forest, leaves: Sequence[int]) -> bool:
    """Whether there are several finished solutions and nothing distinguishes their values."""
    return len(leaves) > 1 and len(set(values(forest, leaves))) == 1


def mean_logprob(forest: Forest, node: int) -> float:
    """The mean log π per token, in nats, of the solution up to `node`."""
    path = forest.path(node)
    return float(forest.logprob[path].sum() / (forest.length[path] - forest.reply_length[path]).sum())


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

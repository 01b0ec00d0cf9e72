"""Rewards and values of a finished tree, from its scores and visits: slow, obviously right.

Every visit is walked from its end up to the root, one by one; nothing is shared with `mcts_dpo/search`.
"""

from __future__ import annotations

import math

from mcts_dpo.search import Forest, SearchSettings


def _path(forest: Forest, node: int) -> list[int]:
    """The steps from below the root to `node`."""
    path = []
    while forest.parent[node] >= 0:
        path.append(node)
        node = int(forest.parent[node])
    return path[::-1]


def _score(forest: Forest, kind: str, node: int) -> float | None:
    score = float(forest.scores[kind][node])
    return None if math.isnan(score) else score


def state_reward(forest: Forest, settings: SearchSettings, node: int) -> float:
    """R: the weighted sum of the last known scores on the path; of a reward at the ends, only the node's own counts."""
    total = 0.0
    for entry in settings.rewards:
        known = [_score(forest, entry.kind, step) for step in _path(forest, node)] if entry.weight else []
        if entry.at == "terminal":
            known = known[-1:]
        known = [score for score in known if score is not None]
        total += entry.weight * known[-1] if known else 0.0
    return total


def step_reward(forest: Forest, settings: SearchSettings, node: int) -> float:
    """r of the step to a node."""
    if settings.accumulate == "difference":
        above = int(forest.parent[node])
        return state_reward(forest, settings, node) - (
            state_reward(forest, settings, above) if forest.parent[above] >= 0 else 0.0
        )
    scores = [(entry.weight, _score(forest, entry.kind, node)) for entry in settings.rewards if entry.weight]
    return sum(weight * score for weight, score in scores if score is not None)


def values(forest: Forest, settings: SearchSettings) -> tuple[dict[int, float], dict[int, float]]:
    """(Q of the edge to each node, V of each node) of all nodes, by node; of a root only V."""
    steps = [node for node in range(len(forest)) if forest.parent[node] >= 0]
    reward = {node: step_reward(forest, settings, node) for node in steps}
    children: dict[int, list[int]] = {node: [] for node in range(len(forest))}
    for node in steps:
        children[int(forest.parent[node])].append(node)
    q: dict[int, float] = {}
    v: dict[int, float] = {}
    returns: dict[int, list[float]] = {node: [] for node in steps}
    for node in range(len(forest)):  # each visit that ended here
        ended = int(forest.visits[node]) - sum(int(forest.visits[child]) for child in children[node])
        for _ in range(ended):
            seen = 0.0
            for step in reversed(_path(forest, node)):
                seen = reward[step] + settings.gamma * seen
                returns[step].append(seen)
    for node in reversed(range(len(forest))):
        visits = [int(forest.visits[child]) for child in children[node]]
        weighted = [n * q[child] for n, child in zip(visits, children[node], strict=True)]
        v[node] = sum(weighted) / sum(visits) if sum(visits) else 0.0
        if node in reward:
            mean = settings.backup == "mean" and returns[node]
            q[node] = sum(returns[node]) / len(returns[node]) if mean else reward[node] + settings.gamma * v[node]
    return q, v

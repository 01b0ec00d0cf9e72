"""When a tree stops, and when it moves on: budget, exhaustion, a choice that is made, `advance: step`.

In: a task and one of its trees, after what came back was backed up. Out: the tree's status and position. Knows neither
engine nor schedule.
"""

from __future__ import annotations

from mcts_dpo.search.forest import EXHAUSTED
from mcts_dpo.search.simulation import Task, Tree, end


def end_if_done(task: Task, tree: Tree) -> None:
    """End a tree that is exhausted, has spent what it may, or has made its choice; or move it on (`advance: step`).

    A move waits until everything that is under way has been backed up.
    """
    settings = task.settings
    while tree.living:
        status = _over(task, tree)
        if not status:
            return
        if settings.advance == "none" or status == "budget":
            end(task, tree, status)
            return
        tree.resting = tree.flying > 0
        if tree.resting:
            return
        _move(task, tree)


def _over(task: Task, tree: Tree) -> str:
    """Why nothing more is to be done at the tree's position; "" if something is."""
    settings = task.settings
    if task.forest.closed[tree.position] == EXHAUSTED:
        return "exhausted"
    if tree.started - tree.base >= settings.simulations:
        return "simulations"
    if settings.budget is not None and settings.budget - tree.info.generated < tree.least:
        return "budget"
    return "decided" if settings.stop == "decided" and is_decided(task, tree) else ""


def is_decided(task: Task, tree: Tree) -> bool:
    """Whether the most visited child of the position stays the most visited, whatever the rest of the budget brings.

    A simulation brings at most `children` visits, each of which costs a token at least. Exhausted children get none.
    """
    settings, forest = task.settings, task.forest
    children = forest.children(tree.position)
    if not children or not forest.expanded[tree.position]:
        return False
    leader = max(children, key=lambda child: int(forest.visits[child]))
    left = settings.simulations - (tree.started - tree.base) + tree.flying
    gain = left * settings.children
    if settings.budget is not None:
        # The last simulation of a training search may go over the budget.
        spare = max(0, settings.budget - tree.info.generated)
        gain = min(gain, spare + (tree.flying + 1) * settings.children)
    return all(
        int(forest.visits[child]) + gain < int(forest.visits[leader])
        for child in children
        if child != leader and forest.closed[child] != EXHAUSTED
    )


def _move(task: Task, tree: Tree) -> None:
    """To the most visited child (then of higher Q, then first sampled); its subtree stays. At an end, the tree ends."""
    forest = task.forest
    children = forest.children(tree.position)
    child = max(children, key=lambda node: (int(forest.visits[node]), float(forest.q[node])))
    tree.info.moves.append(child)
    tree.position, tree.base = child, tree.started
    if forest.terminal[child]:
        end(task, tree, "advanced")

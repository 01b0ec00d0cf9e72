"""Decides when a tree stops, and when its search moves to a child (`advance: step`).

In: a search and one of its trees, after all results so far are backed up. Out: the tree's status and search root. A
tree stops when its budget is spent, when nothing is left to expand, or when its choice is made.
"""

from __future__ import annotations

from mcts_dpo.search.state import SearchState, TreeState, end
from mcts_dpo.search.tree import EXHAUSTED


def advance_or_end(search: SearchState, tree: TreeState) -> None:
    """End a tree that is exhausted, has spent what it may, or has made its choice; or move it on (`advance: step`).

    A move waits until everything that is under way has been backed up.
    """
    settings = search.settings
    while tree.running:
        status = _over(search, tree)
        if not status:
            return
        if settings.advance == "none" or status == "budget":
            end(search, tree, status)
            return
        tree.draining = tree.in_flight > 0
        if tree.draining:
            return
        _move(search, tree)


def _over(search: SearchState, tree: TreeState) -> str:
    """Why nothing more is to be done at the tree's search root; "" if something is."""
    settings = search.settings
    if search.forest.closed[tree.search_root] == EXHAUSTED:
        return "exhausted"
    if tree.started - tree.base >= settings.simulations:
        return "simulations"
    if settings.budget is not None and settings.budget - tree.info.generated < tree.least_tokens:
        return "budget"
    return "decided" if settings.stop == "decided" and is_decided(search, tree) else ""


def is_decided(search: SearchState, tree: TreeState) -> bool:
    """Whether the most visited child of the search root stays the most visited, whatever the rest of the budget brings.

    A simulation brings at most `children` visits, each of which costs a token at least. Exhausted children get none.
    """
    settings, forest = search.settings, search.forest
    children = forest.children(tree.search_root)
    if not children or not forest.expanded[tree.search_root]:
        return False
    leader = max(children, key=lambda child: int(forest.visits[child]))
    left = settings.simulations - (tree.started - tree.base) + tree.in_flight
    gain = left * settings.children
    if settings.budget is not None:
        # The last simulation of a training search may go over the budget.
        spare = max(0, settings.budget - tree.info.generated)
        gain = min(gain, spare + (tree.in_flight + 1) * settings.children)
    return all(
        int(forest.visits[child]) + gain < int(forest.visits[leader])
        for child in children
        if child != leader and forest.closed[child] != EXHAUSTED
    )


def _move(search: SearchState, tree: TreeState) -> None:
    """To the most visited child (then of higher Q, then first sampled); its subtree stays. At an end, the tree ends."""
    forest = search.forest
    children = forest.children(tree.search_root)
    child = max(children, key=lambda node: (int(forest.visits[node]), float(forest.q[node])))
    tree.info.moves.append(child)
    tree.search_root, tree.base = child, tree.started
    if forest.terminal[child]:
        end(search, tree, "advanced")

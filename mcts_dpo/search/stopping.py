"""Decides when the search of a tree ends, and when it moves to a child of its search root (`advance: step`).

In: a search and one of its trees, after each backup. Out: the tree's new status and search root. A search ends when it
is exhausted, its budget, its seconds or its simulations are spent, or its choice is decided.
"""

from __future__ import annotations

from mcts_dpo.search.state import SearchState, TreeState, end
from mcts_dpo.search.tree import EXHAUSTED


def advance_or_end(search: SearchState, tree: TreeState) -> None:
    """End a tree that is exhausted, decided, or out of simulations or tokens. With `advance: step` it moves instead.

    A spent budget of tokens or seconds always ends the tree. A move waits until nothing is in flight.
    """
    settings = search.settings
    while tree.running:
        status = _over(search, tree)
        if not status:
            return
        if settings.advance == "none" or status in ("budget", "seconds"):
            end(search, tree, status)
            return
        tree.draining = tree.in_flight > 0
        if tree.draining:
            return
        _move(search, tree)


def _over(search: SearchState, tree: TreeState) -> str:
    """The reason why the search at the current search root is over; "" if it is not."""
    settings = search.settings
    if not tree.allocation.reopens and search.forest.closed[tree.search_root] == EXHAUSTED:
        return "exhausted"
    if tree.started - tree.base >= settings.simulations:
        return "simulations"
    if settings.budget is not None and settings.budget - tree.info.generated < tree.least_tokens:
        return "budget"
    if tree.deadline.over:
        return "seconds"
    return "decided" if settings.stop == "decided" and is_decided(search, tree) else ""


def is_decided(search: SearchState, tree: TreeState) -> bool:
    """Whether the rest of the budget cannot change which child of the search root is the most visited.

    A simulation adds at most `most_children` visits. Each visit costs at least one token. Exhausted children get no
    visits.
    """
    settings, forest = search.settings, search.forest
    children = forest.children(tree.search_root)
    if not children or not forest.expanded[tree.search_root]:
        return False
    leader = max(children, key=lambda child: int(forest.visits[child]))
    left = settings.simulations - (tree.started - tree.base) + tree.in_flight
    gain = left * settings.most_children
    if settings.budget is not None:
        # The last simulation of a training search may exceed the budget.
        spare = max(0, settings.budget - tree.info.generated)
        gain = min(gain, spare + (tree.in_flight + 1) * settings.most_children)
    return all(
        int(forest.visits[child]) + gain < int(forest.visits[leader])
        for child in children
        if child != leader and (tree.allocation.reopens or forest.closed[child] != EXHAUSTED)
    )


def _move(search: SearchState, tree: TreeState) -> None:
    """Move the search root to its most visited child (ties: higher Q, then first sampled) and keep the subtree.

    The tree ends if that child is the end of a solution.
    """
    forest = search.forest
    children = forest.children(tree.search_root)
    child = max(children, key=lambda node: (int(forest.visits[node]), float(forest.q[node])))
    tree.info.moves.append(child)
    tree.search_root, tree.base = child, tree.started
    if forest.terminal[child]:
        end(search, tree, "advanced")

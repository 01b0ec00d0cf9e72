"""The allocation rules, slow and obviously right: what each leaf of a wave is drawn from, and what is learnt after it.

Written from the description of the rules alone. Nothing is counted as the search goes: each rule looks at the reference
tree as it is, or at the list of everything that was drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mcts_dpo.common.files import seed_from
from tests.reference.engine import shows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.reference.search import Node, ReferenceTree

ONCE = ("auto", "fixed")
"""The rules that draw from a node once. Nothing is solved here, so "auto" is "fixed"."""

ALL_AT_ONCE = (*ONCE, "path")
"""The rules that draw `search.children` samples at a time; the others draw one."""


def next_leaf(tree: ReferenceTree, slot: int, problem: str, simulation: int) -> Node | None:
    """What the leaf number `slot` of a wave is drawn from, by the simulation of this index; None: nothing now."""
    rule = tree.settings.allocation
    if rule.kind in ONCE:
        return tree.select()
    if rule.kind == "progressive":
        return _progressive(tree)
    if rule.kind == "path":
        while tree.going_on:
            node = tree.going_on.pop(0)
            if tree.here in node.path:
                return node
        again = tree.here if tree.exhausted(tree.here) and not tree.in_flight else None
        return tree.select() or again
    if rule.kind == "adaptive":
        return _adaptive(tree, np.random.default_rng(seed_from(tree.settings.seed, "adaptive", problem, simulation)))
    if rule.kind == "entropy":
        return _entropy(tree, simulation)
    while len(tree.chains) <= slot:
        tree.chains.append((tree.root, []))
    return tree.chains[slot][0]


def _progressive(tree: ReferenceTree) -> Node:
    rule, node = tree.settings.allocation, tree.here
    while True:
        visits = tree.visits(node) + tree.virtual(node)
        samples = sum(len(child.masses) for child in node.children) + tree.in_flight.count(node)
        able = [child for child in node.children if not child.finish]
        if not able or samples == 0 or samples < math.ceil(rule.k * visits**rule.alpha):
            return node
        node = max(able, key=tree.score)


def _adaptive(tree: ReferenceTree, rng: np.random.Generator) -> Node:
    def sampled(scores: list[float]) -> float:
        prior = tree.settings.allocation.prior
        return rng.beta(prior + sum(scores), prior + sum(1.0 - score for score in scores))

    node = tree.here
    while True:
        able = [child for child in node.children if not child.finish]
        if not able:
            return node
        below = [[r for parent, r in tree.observed if child in parent.path] for child in able]
        new = sampled([r for parent, r in tree.observed if parent is node])
        old = sampled([r for scores in below for r in scores])
        if new >= old:
            return node
        node = able[int(np.argmax([sampled(scores) for scores in below]))]


def _entropy(tree: ReferenceTree, simulation: int) -> Node:
    rule = tree.settings.allocation
    able = []
    for node in tree.order:
        after = [child.logprobs[0] for child in node.children]
        if after and tree.continued.count(node) < rule.tries:
            able.append((np.float32(min(after)), node))  # trees keep 32 bits
    if simulation % (rule.solutions + rule.branches) < rule.solutions or not able:
        return tree.root
    node = min(able, key=lambda pair: pair[0])[1]
    tree.continued.append(node)
    return node


def surprising(
    tokens: Sequence[int], logprobs: Sequence[float], pieces: list[list[int]], count: int
) -> list[list[int]]:
    """The pieces of a sample (indices of its tokens), cut before its `count` least likely tokens inside them."""
    order = sorted(range(len(tokens)), key=lambda index: (logprobs[index], index))
    for index in order:
        piece = next(piece for piece in pieces if index in piece)
        at = piece.index(index)
        parts = piece[:at], piece[at:]
        if count and all(any(shows(tokens[one]) for one in part) for part in parts):
            place = pieces.index(piece)
            pieces = [*pieces[:place], *parts, *pieces[place + 1 :]]
            count -= 1
    return pieces


def learn(tree: ReferenceTree, slot: int, leaf: Node, ends: list[Node]) -> None:
    """What is known after the leaf number `slot` of a wave gave samples that end at `ends`."""
    rule = tree.settings.allocation

    def belief(node: Node) -> float:
        return 1.0 if node is tree.root else node.confidence

    if rule.kind == "path":
        node = leaf
        while node.expanded:
            node = max(node.children, key=tree.score)
        if not node.finish:
            tree.going_on.append(node)
    if rule.kind == "adaptive":
        for end in ends:
            drawn = end.path[len(leaf.path) :]
            tree.observed += [(step.parent, step.confidence) for step in drawn]
    if rule.kind == "filter":
        node, before = tree.chains[slot]
        drawn = [*before, *ends]
        doubted = belief(ends[0]) < rule.ratio * belief(node)
        if doubted and len(drawn) < rule.tries:
            tree.chains[slot] = (node, drawn)
            return
        accepted = max(drawn, key=belief) if doubted else ends[0]
        tree.chains[slot] = (tree.root if accepted.finish else accepted, [])
    if rule.kind == "first_error":
        drawn = [*tree.chains[slot][1], *ends]
        wrong = [node for node in ends[0].path[1:] if belief(node) < rule.threshold]
        again = wrong and len(drawn) < rule.tries
        tree.chains[slot] = (wrong[0].parent, drawn) if again else (tree.root, [])

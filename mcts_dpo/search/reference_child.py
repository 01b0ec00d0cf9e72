"""Adds the next step of a reference solution to a tree, as an extra child of a node (`search.reference_child`).

In: a search, a tree, and a leaf whose path follows the solution. Out: new nodes, which the policy has not sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from mcts_dpo.search.expansion import Step, attach_unsampled, step_texts
from mcts_dpo.search.reference_steps import answer_end
from mcts_dpo.search.state import SearchState, TreeState, steps_left
from mcts_dpo.search.tree import FINISHES


def add_reference(state: SearchState, tree: TreeState, leaf: int, before: Sequence[int]) -> list[int]:
    """Add the next step of the reference solution under a leaf that is on its path. Returns the new node ids.

    With `expand: rollout` all remaining steps are added. At the depth limit, the last node holds the rest of the
    solution. Nothing is added if the leaf is off the path or at its end, or if the steps exceed the tree's token limit.

    before: the solution's tokens up to the leaf.
    """
    place = tree.reference.get(leaf)
    if place is None or place >= len(tree.steps):
        return []
    settings, forest = state.settings, state.forest
    room = steps_left(state, tree, leaf)
    chain = tree.steps[place:]
    if len(chain) > room:
        chain = [*chain[: room - 1], tuple(token for step in chain[room - 1 :] for token in step)]
    whole = len(chain)
    if settings.expand == "step":
        chain = chain[:1]
    if sum(map(len, chain)) > tree.limit - len(before):
        return []
    ends = list(accumulate(map(len, chain)))
    texts = step_texts(before, [token for step in chain for token in step], ends, state.engine.tokenizer)
    last = FINISHES.index("end" if tree.steps[-1][-1] == answer_end(state.engine.tokenizer, state.prompt) else "answer")
    steps = [
        Step(tokens, (math.nan,) * len(tokens), text, last if turn == whole else 0)
        for turn, (tokens, text) in enumerate(zip(chain, texts, strict=True), 1)
    ]
    new, nodes = attach_unsampled(forest, leaf, steps, settings.merge)
    tree.reference.update((node, place + turn) for turn, node in enumerate(nodes, 1))
    return new

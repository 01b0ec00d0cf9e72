"""Closes an open thought by force, as an extra child of a node (`search.close_child`).

In: a search, a tree, and a leaf. Out: new nodes, which the policy has not sampled. Without such children a tree knows
what an early answer is worth only where the policy happens to give one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mcts_dpo.search.expansion import Step, attach_unsampled, step_texts
from mcts_dpo.search.state import SearchState, TreeState


def add_closing(state: SearchState, tree: TreeState, leaf: int, before: Sequence[int]) -> list[int]:
    """Add the end of the thought that is open at a leaf as one more step. Returns the new node ids: one or none.

    before: the solution's tokens up to the leaf. Nothing is added where the policy has ended the thought itself, or
    where the closing and a token after it do not fit.
    """
    if not state.settings.close_child:
        return []
    closing = state.thoughts.closing(state.prompt.prefill + state.forest.solution_text(leaf))[1]
    if not closing or len(closing) >= tree.limit - len(before):
        return []
    texts = step_texts(before, closing, [len(closing)], state.engine.tokenizer)
    step = Step(closing, (math.nan,) * len(closing), texts[0], 0)
    return attach_unsampled(state.forest, leaf, [step], state.settings.merge)[0]

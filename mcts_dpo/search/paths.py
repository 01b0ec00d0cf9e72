"""Reads a path of a tree in the form in which rewards score it."""

from __future__ import annotations

from itertools import accumulate

from mcts_dpo.environments.base import Turn
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.search.tree import FINISHES, Forest


def turns_of(forest: Forest, node: int) -> tuple[Turn, ...]:
    """The path from the root to a node as an environment sees it."""
    return tuple(
        Turn(forest.texts[step].removesuffix(forest.replies[step]), forest.replies[step])
        if forest.reply_length[step]
        else Turn(forest.texts[step])
        for step in forest.path(node)[1:]
    )


def solution_path(forest: Forest, node: int, prefill: str) -> SolutionPath:
    """The path from the root to a node. prefill: the beginning of every solution (`PromptSettings.prefill`)."""
    nodes = forest.path(node)[1:]
    steps = tuple(forest.texts[step] for step in nodes)
    return SolutionPath(
        prompt=forest.trees[int(forest.tree[node])].prompt_tokens,
        tokens=forest.solution_tokens(node),
        text=prefill + "".join(steps),
        steps=steps,
        ends=tuple(accumulate(int(forest.length[step]) for step in nodes)),
        terminal=bool(forest.terminal[node]),
        closed=FINISHES[forest.finish[node]] == "end",
        outcome=int(forest.outcome[node]),
        answer=forest.answers[node],
        replies=tuple(forest.replies[step] for step in nodes),
        given=float(forest.reply_reward[nodes].sum()),
    )

"""Tree search as a strategy: it searches one tree, and the finished solutions of the tree vote for the answer.

No reference answer is known, so values come from the rewards that judge without one. If `SearchSettings` gives none of
them a weight, self-evaluation gets weight 1. An answer weighs its frequency times the belief of the judges in its
solutions (see `tree_answer`).

Source: Xie et al. 2024, arXiv 2405.00451.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.search.answers import all_equal, mean_logprob, tree_answer, voting_leaves
from mcts_dpo.search.mcts import search_tree
from mcts_dpo.search.state import SearchState, begin
from mcts_dpo.search.tree import LENGTH, Forest
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question, tree_rewards
from mcts_dpo.solve.solution import Solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NOT_TOLD_APART = "all values are equal: no judge tells the solutions apart, so the most frequent answer won"


def mcts(
    question: Question, settings: BudgetedSettings, on_start: Callable[[SearchState], None] = lambda _: None
) -> Coroutine[Solution]:
    """Search one tree and answer the question by its vote.

    on_start: called with the search's state before the search starts, so that a caller can watch it.

    Raises InputError at once if the settings do not allow a search; so this is not a generator function itself.
    """
    digest = _digest(question.tokenizer)
    prepared = [(question.prefix, tree_rewards(question, settings.search))]
    state = begin(
        [question.problem], question.engine, question.prompt, settings.search, "solve", digest, prepared, question.clock
    )
    on_start(state)
    return _grown(state)


def _grown(state: SearchState) -> Coroutine[Solution]:
    yield from search_tree(state, state.trees[0], "asynchronous")
    return tree_solution(state)


@lru_cache(maxsize=8)
def _digest(tokenizer: PreTrainedTokenizerBase) -> str:
    from mcts_dpo.models.loading import tokenizer_digest  # imported late, because it imports torch

    return tokenizer_digest(tokenizer)


def tree_solution(state: SearchState) -> Solution:
    """The solution of a finished search with one tree."""
    forest = state.forest.by_tree()
    info = forest.trees[0]
    votes = int(forest.samples[voting_leaves(forest, 0)].sum())
    if info.status == "failed":
        return Solution(tokens=info.generated, solutions=votes, error=info.reason, forest=forest)
    found = tree_answer(forest, 0)
    if all_equal(forest, voting_leaves(forest, 0)):
        info.notes.append(NOT_TOLD_APART)
    leaf = found.leaf if found.leaf >= 0 else _likeliest(forest, info.moves[-1] if info.moves else info.root)
    steps = steps_of(state, forest, forest.path(leaf)[1:])
    return Solution(
        answer=found.answer,
        text="".join(steps),
        steps=steps,
        cut=not forest.terminal[leaf] or bool(forest.finish[leaf] == LENGTH),
        tokens=info.generated,
        expansions=info.simulations,
        solutions=votes,
        undecided=found.undecided,
        weight=found.weight,
        forest=forest,
    )


def steps_of(state: SearchState, forest: Forest, nodes: Sequence[int]) -> tuple[str, ...]:
    """The texts of nodes below a root. The first begins with the prompt's prefill."""
    texts = [forest.texts[node] for node in nodes]
    return (state.prompt.prefill + texts[0], *texts[1:]) if texts else ()


def _likeliest(forest: Forest, below: int) -> int:
    """The end to show if no solution states an answer: a whole solution before a cut one.

    Among whole solutions the most visited, among cut ones the deepest; ties go to the higher mean log-probability.
    """
    nodes = [int(node) for node in forest.nodes(int(forest.tree[below])) if below in forest.path(int(node))]

    def rank(node: int) -> tuple[bool, int, float]:
        whole = bool(forest.terminal[node]) and forest.finish[node] != LENGTH
        return whole, int(forest.visits[node] if whole else forest.depth[node]), mean_logprob(forest, node)

    return max((node for node in nodes if forest.depth[node] > 0), key=rank, default=below)

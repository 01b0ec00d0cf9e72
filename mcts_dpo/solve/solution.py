"""The result of a strategy on one problem. Every strategy returns this type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcts_dpo.search.tree import Forest
    from mcts_dpo.solve.vote import Sampled


@dataclass(frozen=True, slots=True)
class Solution:
    """The answer to one problem, and what it cost.

    answer:        the answer as the solution states it. None if no finished solution states one.
    text:          the solution that states the answer. If there is no answer, the best text that was sampled.
    steps:         the steps of the text. Joined, they are `text`.
    cut:           whether a limit or the end of the budget cut the text.
    prompt_tokens: number of tokens of the prompt.
    tokens:        tokens spent: all sampled tokens, and for each self-evaluation the tokens of its longer answer.
    judge_tokens:  how many of them the judges cost.
    seconds:       the solution's share, by tokens, of the seconds in which its problems were solved together.
    expansions:    number of prefixes from which samples were drawn; for a tree, its simulations.
    solutions:     number of finished solutions with an answer. These vote.
    undecided:     number of pairs of answers that a vote could not compare in time. They count as different.
    weight:        the weight of the answer in the vote of a tree.
    error:         the reason, in one line, why the engine could not serve the problem. None if it could.
    forest:        the single tree of a tree search. None for other strategies.
    finished:      the sampled solutions, in order, with their scores. () for a tree search: its forest holds them.
    """

    answer: str | None = None
    text: str = ""
    steps: tuple[str, ...] = ()
    cut: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    expansions: int = 0
    solutions: int = 0
    undecided: int = 0
    weight: float = 0.0
    error: str | None = None
    forest: Forest | None = field(default=None, compare=False)
    finished: tuple[Sampled, ...] = field(default=(), compare=False, repr=False)
    judge_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)

    def figures(self) -> dict[str, Any]:
        """The numbers of the search, for logs: answer, tokens and solutions.

        For a tree also: expansions, nodes, V of the root (`value`), the answer's weight, status, and notes if any.
        """
        found: dict[str, Any] = {"answer": self.answer, "tokens": self.tokens, "solutions": self.solutions}
        if self.forest is not None:
            info = self.forest.trees[0]
            found |= {
                "expansions": info.simulations,
                "nodes": len(self.forest),
                "value": float(self.forest.v[info.root]),
                "weight": self.weight,
                "status": info.status,
            }
            if info.notes:
                found["notes"] = list(info.notes)
        return found


def split_text(text: str, step_end: str) -> tuple[str, ...]:
    """Split a text into pieces that end with `step_end`. The last may end without it. Joined, they are the text."""
    pieces = [piece + step_end for piece in text.split(step_end)]
    pieces[-1] = pieces[-1].removesuffix(step_end)
    return tuple(piece for piece in pieces if piece)

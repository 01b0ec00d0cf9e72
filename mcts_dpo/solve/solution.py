"""The result of a strategy on one problem: the one result type of solving."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcts_dpo.search.tree import Forest


@dataclass(frozen=True, slots=True)
class Solution:
    """The answer to one problem, and what it cost.

    answer:        as the solution states it; None if no finished solution states one.
    text:          the solution behind the answer, or the likeliest sampled text if there is no answer.
    steps:         the text in steps; joined they are `text`.
    cut:           the text was cut by a limit or by the end of the budget.
    prompt_tokens: of the prompt.
    tokens:        spent: tokens sampled, and each self-evaluation as the tokens of its longer answer.
    expansions:    prefixes from which samples were drawn; of a tree its simulations.
    solutions:     finished solutions with an answer: those that had a vote.
    undecided:     pairs of answers that a vote could not compare in time. They count as different.
    weight:        the weight of the answer in the vote of a tree.
    error:         the reason, in one line, why the engine could not serve the problem; else None.
    forest:        the one tree of a tree search; else None.
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

    def figures(self) -> dict[str, Any]:
        """The search in figures, for logs: answer, tokens, solutions; of a tree expansions, nodes, V of the root, the
        answer's weight, status and notes."""
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
    """A text in pieces that end with `step_end`; the last may end without. Joined they are the text."""
    pieces = [piece + step_end for piece in text.split(step_end)]
    pieces[-1] = pieces[-1].removesuffix(step_end)
    return tuple(piece for piece in pieces if piece)

"""Chooses one answer from many finished solutions: by count, by score, or by scores summed over equal answers.

`majority` is self-consistency (Wang et al. 2022, arXiv 2203.11171). `best-of-n` takes the solution with the highest
score (Cobbe et al. 2021, arXiv 2110.14168, who use a trained verifier). `weighted` is a vote in which each solution
counts as much as its score (Li et al. 2022, arXiv 2206.02336, section 3.2).

A score may be unknown (nan), because a judge failed. `best-of-n` then prefers every solution with a known score; in a
`weighted` vote the solution counts as much as the others on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mcts_dpo.solve.solution import Solution
from verifiers import grouped

Rule = Literal["majority", "best-of-n", "weighted"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled solution.

    answer: None if the text states none or was cut.
    tokens: number of its tokens.
    score:  in [0, 1], nan if no judge knows it. None if it was not scored.
    cut:    whether a limit of tokens cut it.
    """

    text: str
    answer: str | None
    tokens: int
    score: float | None = None
    cut: bool = False


def winner(solutions: Sequence[Sampled], rule: Rule, spent: int) -> Solution:
    """Choose the answer of sampled solutions by a rule. A tie goes to the answer that was found first.

    spent: tokens spent, for the result. Returns the first whole solution if no solution states an answer.
    """
    answered = [solution for solution in solutions if solution.answer is not None]
    if not answered:
        # The first whole solution, because the text of a cut one depends on the budget.
        whole = next((one for one in solutions if not one.cut and one.tokens > 1), None)
        return Solution(text=whole.text if whole else "", tokens=spent, finished=tuple(solutions))
    weights = _weights(answered, rule)
    undecided = 0
    if rule == "best-of-n":
        best = max(range(len(answered)), key=weights.__getitem__)
    else:
        vote = grouped([solution.answer for solution in answered])
        best = max(vote.classes, key=lambda members: sum(weights[index] for index in members))[0]
        undecided = vote.undecided
    return Solution(
        answered[best].answer,
        answered[best].text,
        tokens=spent,
        solutions=len(answered),
        undecided=undecided,
        finished=tuple(solutions),
    )


def _weights(solutions: Sequence[Sampled], rule: Rule) -> list[float]:
    if rule == "majority":
        return [1.0] * len(solutions)
    scores = [_score(solution) for solution in solutions]
    known = [score for score in scores if not math.isnan(score)]
    unknown = -math.inf if rule == "best-of-n" else sum(known) / len(known) if known else 1.0
    return [unknown if math.isnan(score) else score for score in scores]


def _score(solution: Sampled) -> float:
    assert solution.score is not None, "a solution within the budget has been judged"
    return solution.score

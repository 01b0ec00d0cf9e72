"""Shares one budget of tokens out over many problems: what to buy next, from what is known of each problem.

In: the evidence of every problem and the tokens that are left. Out: purchases. Each problem gets its greedy solution
first; then a batch of samples; then trees. Money goes where it promises most: where the answers disagree or the judges
doubt them, where little was tried, and where a purchase is cheap. A pure function: `sharing.py` makes the purchases.

Source of the idea: Damani et al. 2024, "Learning How Hard to Think", arXiv 2410.04707 (there a trained model predicts
the gain; here agreement and belief stand for it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["greedy", "samples", "tree"]
KINDS: tuple[Kind, ...] = ("greedy", "samples", "tree")

SAMPLES = 4
"""Solutions that one batch of samples pays for."""
TREE = 8
"""Solutions that cost as much as one tree."""
SHARE = 0.25
"""The share of the tokens that are left which one round may plan, so that later rounds can use what it shows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one problem.

    limit:     the longest solution, in tokens (≥ 1).
    cost:      tokens that one judgement of a solution costs (≥ 0).
    weights:   for each class of equal answers, the sum of the beliefs in its solutions (each in [0, 1]).
    solutions: solutions that were sampled. tokens: what they cost, in tokens.
    purchases: how many purchases were made.
    closed:    no more can be bought: the engine refused it.
    """

    limit: int
    cost: int = 0
    weights: tuple[float, ...] = ()
    solutions: int = 0
    tokens: int = 0
    purchases: int = 0
    closed: bool = False

    @property
    def confidence(self) -> float:
        """How sure the leading answer is, in [0, 1): its share of the belief, with one unit of belief in none."""
        return max(self.weights, default=0.0) / (sum(self.weights) + 1)

    @property
    def gain(self) -> float:
        """The expected gain of one more purchase, in [0, 1]: it falls with confidence and with what was tried."""
        return 0.0 if self.closed else (1 - self.confidence) / max(1, self.purchases)


@dataclass(frozen=True, slots=True)
class Purchase:
    """What to buy for one problem. problem: its index. budget: tokens at most (≥ 1)."""

    problem: int
    kind: Kind
    budget: int


def next_purchases(problems: Sequence[Evidence], left: int) -> list[Purchase]:
    """The purchases of one round, at most one for a problem. [] ends the sharing.

    left: tokens that are left (≥ 0). The budgets of the purchases never sum to more.
    """
    new = [index for index, one in enumerate(problems) if not one.purchases and not one.closed]
    return _greedy(problems, new, left) if new else _best(problems, left)


def _greedy(problems: Sequence[Evidence], new: Sequence[int], left: int) -> list[Purchase]:
    """The greedy solutions that are paid at full length, or one that is cut to what is left."""
    found: list[Purchase] = []
    for index in new:
        budget = min(problems[index].limit, left)
        if budget < 1 or (found and budget < problems[index].limit):
            break
        found.append(Purchase(index, "greedy", budget))
        left -= budget
    return found


def _best(problems: Sequence[Evidence], left: int) -> list[Purchase]:
    """The purchases of highest gain per token. Ties go to the first problem."""
    drawn = sum(one.solutions for one in problems)
    length = math.ceil(sum(one.tokens for one in problems) / drawn) if drawn else 1
    offers = []
    for index, one in enumerate(problems):
        least = max(1, min(length, one.limit)) + one.cost
        kind: Kind = "samples" if one.purchases == 1 else "tree"
        price = least * (SAMPLES if kind == "samples" else TREE)
        if one.gain > 0 and least <= left:
            offers.append((-one.gain / price, index, Purchase(index, kind, min(price, left)), least))
    found: list[Purchase] = []
    planned = 0
    for _, _, purchase, least in sorted(offers, key=lambda offer: offer[:2]):
        budget = min(purchase.budget, left - planned)
        if budget < least or (found and planned + budget > SHARE * left):
            break
        found.append(Purchase(purchase.problem, purchase.kind, budget))
        planned += budget
    return found

"""Scoring choices of several tokens through a model that scores single next tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Tokens = tuple[int, ...]


def next_token_queries(choices: tuple[Tokens, ...], most: int) -> list[tuple[Tokens, Tokens]]:
    """The next tokens whose log-probabilities score all choices.

    Args:
        choices: non-empty sequences of token ids.
        most: tokens in one query (≥ 1).

    Returns:
        (beginning, tokens): after the prefix and this beginning of some choices, these tokens may follow. A beginning
        occurs more than once if more than `most` tokens follow it.
    """
    following: dict[Tokens, set[int]] = {}
    for choice in choices:
        for i, token in enumerate(choice):
            following.setdefault(choice[:i], set()).add(token)
    return [
        (beginning, tuple(sorted(tokens)[start : start + most]))
        for beginning, tokens in following.items()
        for start in range(0, len(tokens), most)
    ]


def normalised_choices(choices: tuple[Tokens, ...], scores: Mapping[Tokens, float]) -> tuple[float, ...]:
    """P(choice), normalised over the choices. scores: log π(last token | all before it) by beginning of a choice."""
    totals = np.array([sum(scores[choice[: i + 1]] for i in range(len(choice))) for choice in choices])
    shares = np.exp(totals - totals.max())
    return tuple((shares / shares.sum()).tolist())

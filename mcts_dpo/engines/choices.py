"""What has to be asked of a model to score choices of several tokens, one next token at a time. Token ids only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Tokens = tuple[int, ...]


def questions(choices: tuple[Tokens, ...], most: int) -> list[tuple[Tokens, Tokens]]:
    """After every beginning that some choices share, the tokens that follow it: (beginning, tokens), at most `most`."""
    following: dict[Tokens, set[int]] = {}
    for choice in choices:
        for i, token in enumerate(choice):
            following.setdefault(choice[:i], set()).add(token)
    return [
        (after, tuple(sorted(tokens)[start : start + most]))
        for after, tokens in following.items()
        for start in range(0, len(tokens), most)
    ]


def probabilities(choices: tuple[Tokens, ...], scores: Mapping[Tokens, float]) -> tuple[float, ...]:
    """P(choice) normalised over the choices. scores: log π(last | all before it) of every beginning of a choice."""
    totals = np.array([sum(scores[choice[: i + 1]] for i in range(len(choice))) for choice in choices])
    shares = np.exp(totals - totals.max())
    return tuple((shares / shares.sum()).tolist())

"""Reads a judge's verdict from its answer: a word, or a grade. Pure text in, a score in [0, 1] or nan out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mcts_dpo.engines.chat import ChatAnswer, ChatToken

HIGHEST = 10
"""The best grade; 0 is the worst."""
_GRADE = re.compile(r"(?<![\w./,-])(-?\d+(?:\.\d+)?)(?:\s*/\s*10\b|\s+out of\s+10\b)?(?![\w/]|[.,]\d)", re.IGNORECASE)
_CUE = re.compile(r"\b(?:grade|score|verdict)\b", re.IGNORECASE)


def word_score(answer: ChatAnswer, words: tuple[str, str]) -> float:
    """P(good) / (P(good) + P(bad)) where the answer says one of two words for the last time.

    Without log-probabilities it is 1 for the good word and 0 for the bad one; nan if the answer says neither.

    words: (good, bad); upper and lower case are the same.
    """
    text = "".join(token.text for token in answer.tokens) or answer.text
    said = list(re.finditer(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", text, re.IGNORECASE))
    if not said:
        return math.nan
    good, bad = (_mass(_token_at(answer.tokens, said[-1].start()), *pair) for pair in (words, words[::-1]))
    if good + bad > 0:
        return good / (good + bad)
    return float(said[-1].group().casefold() == words[0].casefold())


def _token_at(tokens: Sequence[ChatToken], place: int) -> ChatToken | None:
    """The token that holds a character of the text; None without tokens."""
    for token in tokens:
        if place < len(token.text):
            return token
        place -= len(token.text)
    return None


def _mass(token: ChatToken | None, word: str, other: str) -> float:
    """The probability of the alternatives that begin `word` and not the other one."""
    if token is None:
        return 0.0
    begins = {text: re.sub(r"^\W+|\W+$", "", text).casefold() for text in token.alternatives}
    own = [
        text
        for text, start in begins.items()
        if start and word.casefold().startswith(start) and not other.casefold().startswith(start)
    ]
    return sum(math.exp(token.alternatives[text]) for text in own)


def grade_score(text: str) -> float:
    """A grade over `HIGHEST`: the first one after the text's last "grade", or its last number; nan if out of range."""
    cues = list(_CUE.finditer(text))
    found = [float(one[1]) for one in _GRADE.finditer(text, cues[-1].end() if cues else 0)]
    grade = math.nan if not found else found[0] if cues else found[-1]
    return grade / HIGHEST if 0 <= grade <= HIGHEST else math.nan

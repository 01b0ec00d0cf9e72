"""Finds marks after a value: "12 is the answer", "so B is the correct option".

In: a text. Out: (start, end, the value) of each such statement.
"""

from __future__ import annotations

import re
from collections import deque

from verifiers.read.masks import masked
from verifiers.read.thoughts import lowered
from verifiers.read.values import is_bare, is_value, value_in_prose

_POSTFIX = re.compile(
    r"\s{0,4}(?:\bis|\bare|\bmust be|\bwill be)\s{1,4}(?:the|our|my|thus the|therefore the"
    r"|then the)\s{1,4}(?:final\s{1,3}|correct\s{1,3}|right\s{1,3}|required\s{1,3}|desired\s{1,3}"
    r"|best\s{1,3}){0,2}"
    r"(?:answers?|solution|choice|option)\b(?!\s+(?:is|to|for|of|we|that)\b)(?!\s?[:?])"
)
_CLAUSE = re.compile(
    r"[.!?:;]\s|\n|,\s|\b(?:so|therefore|thus|hence|that|and|then|conclude|means|because|since|but)\b,?"
)
MAX_POSTFIX = 12
_REACH = 200


def postfix_marks(text: str) -> list[tuple[int, int, str]]:
    """Find the last ``MAX_POSTFIX`` statements of a text whose mark follows the value."""
    if not any(word in text for word in ("answer", "solution", "choice", "option")):
        return []
    low = lowered(text)
    found = []
    for match in deque(_POSTFIX.finditer(low), maxlen=MAX_POSTFIX):
        begin = max(0, match.start() - _REACH)
        before = text[begin : match.start()]
        cuts = list(_CLAUSE.finditer(masked(before).lower()))
        value = before[cuts[-1].end() :] if cuts else before
        value = value.strip(" *_")
        if (
            value
            and is_bare(value)
            and is_value(value)
            and not re.match(r"(?:it|this|that|which|what|here|there|and)\b", value, re.IGNORECASE)
        ):
            stated = value_in_prose(value)
            if stated is not None:
                found.append((match.start() - len(value), match.end(), stated[0]))
    return found

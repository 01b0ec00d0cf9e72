"""Finds the answer tags of a text: ``<answer>…</answer>``, closed or cut off by a stop string.

In: a text. Out: where its tags are and what they hold.
"""

from __future__ import annotations

import re
from collections import deque

_TAG = re.compile(r"<(answer|final_answer|final answer|ans|final|result)>", re.IGNORECASE)
MAX_TAGS = 24


def tags(text: str) -> list[tuple[int, int, str]]:
    """Find the answer tags of a text, in order, each as (start, end, content)."""
    found = []
    opened = list(deque(_TAG.finditer(text), maxlen=MAX_TAGS)) if "<" in text else []
    limits = [*(match.start() for match in opened[1:]), len(text)][: len(opened)]
    for match, limit in zip(opened, limits, strict=True):
        closing = re.compile(rf"</\s?{re.escape(match[1])}\s?>", re.IGNORECASE).search(text, match.end(), limit)
        end = closing.start() if closing else limit
        found.append((match.start(), closing.end() if closing else end, text[match.end() : end].strip()))
    return found

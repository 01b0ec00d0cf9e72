"""Finds GSM8K's mark: ``####`` at the start of a line, with an answer after it or on the next line.

In: a text. Out: where such marks are and what they state. A Markdown heading ("#### Step 1: add") states nothing.
"""

from __future__ import annotations

import re
from collections import deque

from verifiers.quantities.spans import quantity_span
from verifiers.read.phrases import Phrase, first_phrase
from verifiers.read.values import is_bare

MAX_HASHES = 24
_HASHES = re.compile(r"(?:(?<=\n)|\A)[ \t>*]{0,8}#{4,8}(?!#)(?P<rest>[^\n]{0,2000})")
_NEXT_LINE = re.compile(r"\s{0,200}([^\n]{1,2000})")
_HEADING = re.compile(
    r"\W{0,6}(?:\d{1,3}[.)]\s{1,3}(?=[^\W\d][^\n]*[^.\n]\Z)|(?:step|part|case|section|chapter|phase|stage|example|exercise|problem"
    r"|question|method|option|approach|task|lemma"
    r"|theorem|proof|definition|explanation|solution|answer|final answer|conclusion|summary|note"
    r"|notes|verification|verify|check|checking|calculations?"
    r"|results?|given|analysis|reasoning|setup|overview|introduction|background|discussion|details"
    r"|remarks?|hint|thought|thinking|understand\w*"
    r"|identify\w*|find\w*|comput\w*|calculat\w*|determin\w*|solv\w*|set up|define|simplif\w*"
    r"|substitut\w*|first|second|third|next|finally|final|now)\b)",
    re.IGNORECASE,
)
_SAID = re.compile(r"(?:yes|no|true|false)(?:\s?[,;—–]|\s(?:because|since|as)\b)", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{2,}")
_KNOWN_WORDS = re.compile(r"\W*(?:yes|no|true|false|none|infinity|undefined|[a-e])\W*", re.IGNORECASE)


def hashes(text: str) -> list[tuple[int, int, Phrase]]:
    """Find the marks of a text, in order, without headings.

    Each mark is a tuple: its start, the index from which its answer was read, and what it states.
    """
    found = []
    for match in deque(_HASHES.finditer(text), maxlen=MAX_HASHES):
        line, at = match["rest"], match.start("rest")
        if not line.strip(" \t#*"):
            following = _NEXT_LINE.match(text, match.end())
            if following is None:
                continue
            line, at = following[1], following.start(1)
        phrase = _stated(line, text[at + len(line) :])
        if phrase is not None:
            found.append((match.start(), at, phrase))
    return found


def _stated(line: str, following: str) -> Phrase | None:
    bare = line.rstrip("# \t*")
    if _HEADING.match(bare):
        return None
    phrase = first_phrase(bare)
    if phrase.answer is None or phrase.question:
        return None
    words = _WORDS.findall(phrase.answer)
    if _SAID.match(bare.strip()):
        return phrase
    if words and not any(char.isdigit() for char in phrase.answer) and "\\" not in phrase.answer:
        only = not following.strip() or bool(_KNOWN_WORDS.fullmatch(phrase.answer))
        return phrase if only and (is_bare(bare) or quantity_span(bare.strip())) else None
    return phrase

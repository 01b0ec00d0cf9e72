"""Removes thoughts: text that a policy writes between thought marks, and that does not count as stated.

In: a text. Out: the text without its thoughts. :func:`register_thought` extends the table of marks.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TAGS = (
    "think", "thinking", "thought", "thoughts", "reasoning", "reason", "reflection", "scratchpad", "analysis",
    "inner_monologue", "monologue", "seed:think", "longcat_think", "ant:thinking",
)  # fmt: skip
_PAIRS: list[tuple[str, str]] = [
    *((f"<{tag}>", f"</{tag}>") for tag in _TAGS),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|begin_thought|>", "<|end_thought|>"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|thinking_start|>", "<|thinking_end|>"),
    ("<|think|>", "<|/think|>"),
    ("◁think▷", "◁/think▷"),
    ("[think]", "[/think]"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel|>analysis", "<|channel|>final"),
    ("<|channel|>commentary", "<|channel|>final"),
    ("<|channel|>analysis", "assistant<|channel|>final"),
    ("<|channel|>commentary", "assistant<|channel|>final"),
    ("<|channel>thought", "<channel|>"),
]
"""Pairs (mark that opens a thought, mark that ends it), in lower case. Both are found in any case."""
_HARMONY = re.compile(r"\Aanalysis(?=\S).*?assistantfinal", re.DOTALL)


def register_thought(opening: str, closing: str) -> None:
    """Add a pair of marks; the text between them is a thought.

    Worker processes receive text that their parent has already read, so a pair counts from the next call on. Raises
    ``ValueError`` for an empty mark or two equal marks.
    """
    for name, mark in (("opening", opening), ("closing", closing)):
        if not isinstance(mark, str) or not mark.strip():
            raise ValueError(f"{name}: {mark!r} (accepted: a text that is not blank)")
    if opening == closing:
        raise ValueError(f"closing: {closing!r} is also the opening mark (accepted: another text)")
    _PAIRS.append((opening.lower(), closing.lower()))
    _marks.cache_clear()


Pairs = tuple[tuple[str, str], ...]


@lru_cache(maxsize=16)
def _marks(more: Pairs = ()) -> tuple[re.Pattern[str], dict[str, frozenset[str]], frozenset[str]]:
    """Return the pattern of all marks, the closing marks of each opening mark, and all closing marks."""
    ends: dict[str, set[str]] = {}
    pairs = (*_PAIRS, *((opening.lower(), closing.lower()) for opening, closing in more))
    for opening, closing in pairs:
        ends.setdefault(opening, set()).add(closing)
    closings = frozenset(closing for _, closing in pairs)
    longest_first = sorted({*ends, *closings}, key=len, reverse=True)
    tails: dict[str, list[str]] = {}
    for mark in longest_first:
        tails.setdefault(mark[0], []).append(re.escape(mark[1:]))
    pattern = re.compile("|".join(f"{re.escape(head)}(?:{'|'.join(rest)})" for head, rest in tails.items()))
    return pattern, {opening: frozenset(all_ends) for opening, all_ends in ends.items()}, closings


def known_thoughts() -> Pairs:
    """Return all pairs of marks, in lower case: the built-in ones, then the registered ones."""
    return tuple(_PAIRS)


def thought_spans(text: str, before: str = "", more: Pairs = ()) -> list[tuple[int, int | None]]:
    """Find the thoughts of a text, their marks included: (start, end) of each, in order.

    ``before``: the text before it; a thought that is open at its end continues in the text. ``more``: further pairs of
    marks. The end of an unclosed thought is None; it reaches to the end of the text. If a closing mark has no opening
    mark, everything before it is a thought, because the prompt held the opening mark.
    """
    low = lowered(text)
    artefact = _HARMONY.match(low)
    spans: list[tuple[int, int | None]] = [(0, artefact.end())] if artefact else []
    pattern, ends, closings = _marks(more)
    opened, start = (_open_in(lowered(before), more) if before else None), 0
    for match in pattern.finditer(low, artefact.end() if artefact else 0):
        mark = match.group()
        if opened is None and mark in ends:
            opened, start = mark, match.start()
        elif opened is not None and mark in ends[opened]:
            spans.append((start, match.end()))
            opened = None
        elif opened is None and mark in closings:
            spans = [(0, match.end())]
    return spans if opened is None else [*spans, (start, None)]


def without_thoughts(text: str, before: str = "", more: Pairs = ()) -> str:
    """Remove the thoughts of a text; see :func:`thought_spans` for what a thought is."""
    if not before and not more and not may_think(text):
        return text
    kept, at = [], 0
    for start, end in thought_spans(text, before, more):
        kept.append(text[at:start])
        at = len(text) if end is None else end
    return "".join((*kept, text[at:]))


def may_think(text: str) -> bool:
    """Return whether a text can hold a mark: a quick search for the signs of marks."""
    return len(_PAIRS) != _BUILT_IN or any(sign in text for sign in ("<", "◁", "[", "assistantfinal"))


def _open_in(low: str, more: Pairs = ()) -> str | None:
    """Return the mark that opened the thought that is still open at the end of a lower-case text, or None."""
    pattern, ends, _ = _marks(more)
    opened: str | None = None
    for match in pattern.finditer(low):
        mark = match.group()
        if opened is None and mark in ends:
            opened = mark
        elif opened is not None and mark in ends[opened]:
            opened = None
    return opened


def lowered(text: str) -> str:
    """Convert a text to lower case, character by character, so that all indices stay the same."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c if len(c.lower()) != 1 else c.lower() for c in text)


_BUILT_IN = len(_PAIRS)

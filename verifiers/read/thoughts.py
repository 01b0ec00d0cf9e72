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


@lru_cache(maxsize=1)
def _marks() -> tuple[re.Pattern[str], dict[str, frozenset[str]], frozenset[str]]:
    """Return the pattern of all marks, the closing marks of each opening mark, and all closing marks."""
    ends: dict[str, set[str]] = {}
    for opening, closing in _PAIRS:
        ends.setdefault(opening, set()).add(closing)
    closings = frozenset(closing for _, closing in _PAIRS)
    longest_first = sorted({*ends, *closings}, key=len, reverse=True)
    tails: dict[str, list[str]] = {}
    for mark in longest_first:
        tails.setdefault(mark[0], []).append(re.escape(mark[1:]))
    pattern = re.compile("|".join(f"{re.escape(head)}(?:{'|'.join(rest)})" for head, rest in tails.items()))
    return pattern, {opening: frozenset(all_ends) for opening, all_ends in ends.items()}, closings


def without_thoughts(text: str, before: str = "") -> str:
    """Remove the thoughts of a text, in one pass.

    ``before``: the text before it; a thought that is open at its end continues in the text. An unclosed thought reaches
    to the end. If a closing mark has no opening mark, everything before it is a thought, because the prompt held the
    opening mark.
    """
    if not before and not any(sign in text for sign in ("<", "◁", "[", "assistantfinal")) and len(_PAIRS) == _BUILT_IN:
        return text
    low = lowered(text)
    artefact = _HARMONY.match(low)
    at = artefact.end() if artefact else 0
    opened = _open_in(lowered(before)) if before else None
    pattern, ends, closings = _marks()
    kept: list[str] = []
    for match in pattern.finditer(low, at):
        mark = match.group()
        if opened is None and mark in ends:
            kept.append(text[at : match.start()])
            opened = mark
        elif opened is not None and mark in ends[opened]:
            opened, at = None, match.end()
        elif opened is None and mark in closings:
            kept, at = [], match.end()
    return "".join(kept) if opened is not None else "".join((*kept, text[at:]))


def _open_in(low: str) -> str | None:
    """Return the mark that opened the thought that is still open at the end of a lower-case text, or None."""
    pattern, ends, _ = _marks()
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

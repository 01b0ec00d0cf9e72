"""Masks a text: copies it with mathematics and bracketed values blocked out, so that only the sentence shows.

In: a text. Out: a text of the same length. :data:`BLOCK` replaces each character of a formula, of a LaTeX command with
its arguments, and of a bracket that holds a value. Commas and full stops in them thus end no phrase. A mask takes one
pass, without backtracking.
"""

from __future__ import annotations

import re

BLOCK = "\ue000"
_TOKEN = re.compile(
    r"\\\(|\\\)|\\\[|\\\]|\\{1,2}begin\s{0,3}\{[a-z*]{1,20}\}|\\{1,2}end\s{0,3}\{[a-z*]{1,20}\}"
    r"|\\{1,2}(?:angle|triangle|measuredangle)\s{0,2}[A-Z]{1,4}(?![a-z])|\\{1,4}[A-Za-z]+|\\.|\|[A-Z]{1,3}\|"
    r"|\$\$|\$|[{}()\[\]]|\n\s{0,20}\n",
    re.DOTALL,
)
_PAIRED = {")": "(", "]": "[", "}": "{"}


def words_of(text: str) -> frozenset[str]:
    """Split a text into its words and return them as a set."""
    return frozenset(text.split())


_FUNCTIONS = words_of(
    "sin cos tan cot sec csc log ln exp sqrt mod gcd lcm max min pi inf infty arcsin arccos arctan "
    "sinh cosh tanh cbrt abs det binom frac theta alpha beta or and cis atan asin acos"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_PROSE_IN_DOLLARS = re.compile(r"(?<![\\{A-Za-z])[A-Za-z]{3,}(?![A-Za-z({])")
_NUMERIC = re.compile(r"[\s\d.,+\-*/=×÷^]*=?[\s\d.,+\-*/×÷^]*")


def masked(text: str) -> str:
    """Return the mask of a text, with the same length."""
    out = list(text)
    for start, end in formula_spans(text):
        out[start:end] = BLOCK * (end - start)
    return "".join(out)


def formula_spans(text: str) -> list[tuple[int, int]]:
    """Find the outermost formulas, commands and bracketed values, in order, each as (start, end)."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    dollar = opened = environment = -1
    for match in _TOKEN.finditer(text):
        token, at, end = match.group(), match.start(), match.end()
        if token in ("$", "$$"):
            if dollar < 0 or _is_currency(text, dollar, at, end):
                dollar = at
            else:
                _add(spans, dollar, end)
                dollar = -1
        elif token[0] == "\n":
            dollar, stack = (dollar if text.startswith("$$", dollar) else -1), []
        elif token in ("\\(", "\\["):
            opened = at
        elif token in ("\\)", "\\]"):
            if opened >= 0:
                _add(spans, opened, end)
            opened = -1
        elif token.lstrip("\\").startswith("begin{"):
            environment = at if environment < 0 else environment
        elif token.lstrip("\\").startswith("end{"):
            if environment >= 0:
                _add(spans, environment, end)
            environment = -1
        elif token[0] in "\\|":
            _add(spans, at, end)
        elif token in "([{":
            stack.append((token, at))
        elif stack and (stack[-1][0] == _PAIRED[token] or (token in ")]" and stack[-1][0] in "([")):
            start = stack.pop()[1]
            if token == "}" or _is_value(text, start, end):
                _add(spans, start, end)
    return spans


def _add(spans: list[tuple[int, int]], start: int, end: int) -> None:
    """Add a span. It replaces the spans inside it. A span inside another span is not added."""
    while spans and spans[-1][0] >= start:
        spans.pop()
    if not spans or spans[-1][1] <= start:
        spans.append((start, end))


def _is_currency(text: str, opening: int, closing: int, end: int) -> bool:
    """Whether the dollar sign at ``opening`` is a currency sign, and not the start of a formula that ends at
    ``closing``."""
    inner = text[opening + 1 : closing]
    if text.startswith("$$", opening):
        return False
    if not inner.strip():
        return True
    if inner[0].isdigit() and text[end : end + 1].isdigit():
        return True
    bare = re.sub(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s{0,3}\{[^{}]{0,200}\}", " ", inner)
    return inner[0].isdigit() and any(word.lower() not in _FUNCTIONS for word in _PROSE_IN_DOLLARS.findall(bare))


def _is_value(text: str, start: int, end: int) -> bool:
    """Whether a bracket holds a value or an argument, rather than a remark."""
    inner = text[start + 1 : end - 1]
    if len(inner) > 400:
        return False
    words = [word.lower() for word in _WORD.findall(re.sub(r"\\[A-Za-z]+", " ", inner))]
    if any(word not in _FUNCTIONS and not word.isupper() and len(word) > 1 for word in words if word not in _FUNCTIONS):
        return False
    return not (_is_remark(text, start) and ("=" in inner or "≈" in inner or _NUMERIC.fullmatch(inner)))


def _is_remark(text: str, start: int) -> bool:
    """Whether a bracket that holds only numbers follows a number or a word and a blank: "12 (3*4)", "twelve (12)"."""
    if not start or text[start - 1] not in " *_":
        return False
    before = text[max(0, start - 30) : start].rstrip(" *_$")
    word = re.search(r"[^\W\d_]{3,}\Z", before)
    return before[-1:].isdigit() or (word is not None and word.group().lower() not in _FUNCTIONS)

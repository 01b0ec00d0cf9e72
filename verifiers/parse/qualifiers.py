r"""Rewrites words about the values of a letter: "where k is an integer" becomes ``, k \in \mathbb{Z}``."""

from __future__ import annotations

import re

_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{([^{}]*)\}")
_START = re.compile(
    r"(?:[,;(]\s*)?(?:\\(?:text|mbox|textrm)\s*\{\s*[,;(]?\s*)?(?:\b(?:where|for|with|if|and|when)\b|\\forall(?![a-zA-Z]))"
    r"|[,;(]\s*(?:\\(?:text|mbox)\s*\{)?\s*(?=(?:any\s+|an?\s+)?[A-Za-z]\s*(?:\}?\s*\\in\b|\}?\s*(?:\\text\s*\{)?\s*"
    r"(?:is\s+|are\s+)?(?:an?|any|some|arbitrary|integer|real|constant)\b))",
    re.IGNORECASE,
)
_KIND = (
    r"(?:(?:an?|any|some|the|all|every|arbitrary|fixed)\s+)*(?P<kind>positive\s+integer|non-?negative\s+integer"
    r"|natural|whole|integer|integral|positive\s+real|nonzero\s+real|real|rational|complex|constant|arbitrary|number|parameter)s?"
    r"(?:\s+(?:numbers?|constants?|values?|integers?|parameters?))?"
)
_LETTER = r"(?:\\?[A-Za-z]+(?:_\s*(?:\{\s*\w+\s*\}|\w))?)"
_LETTERS = rf"(?P<names>{_LETTER}(?:\s*(?:,|and|,\s*and)\s*{_LETTER})*)"
_SET = r"(?P<set>\\mathbb\s*\{?\s*[RZNQC]\s*\}?(?:\s*[\^_]\s*(?:\{[^{}]*\}|[+*]))?|[RZNQC])"
_LEAD = r"(?:where|for|with|if|and|when)\b\s*(?:(?:all|every|any|each|some)\b\s*)?"
_IN = rf"(?:\\in|\bin\b)\s*{_SET}"
_FORMS = [
    rf"(?:for\s+(?:all|every|any|each)\b|\\forall)\s*(?:{_KIND}\s+(?:of\s+)?)?(?:values?\s+of\s+)?{_LETTERS}(?:\s*{_IN})?",
    rf"{_LEAD}{_KIND}\s+(?:of\s+)?{_LETTERS}(?:\s*{_IN})?",
    rf"{_LEAD}{_LETTERS}\s*(?:is|are|being|denotes?)?\s*{_KIND}",
    rf"{_LETTERS}\s*(?:is|are|being)?\s+{_KIND}",
    rf"{_KIND}\s+{_LETTERS}",
    rf"(?:{_LEAD})?{_LETTERS}\s*{_IN}",
    rf"{_LEAD}(?P<names>[nmkN])\s*(?:\\geq?|>=|>)\s*[01]",
]
_READERS = [re.compile(form, re.IGNORECASE) for form in _FORMS]
_DOMAINS = {"integer": "Z", "integral": "Z", "natural": "N", "whole": "N", "real": "R", "rational": "Q", "complex": "C"}
_PARTS = {"positive": "^{+}", "nonnegative": "_{0}", "non-negative": "_{0}"}
MAX_TAIL = 120


def with_qualifiers(text: str) -> str:
    r"""Writes a qualifier at the end of the text as ``, k \in \mathbb{Z}``; a text without one stays unchanged."""
    for match in _START.finditer(text):
        tail = text[match.start() :]
        if not text[: match.start()].strip() or len(tail) > MAX_TAIL:
            continue
        written = _membership(" ".join(_WRAPPED.sub(r" \1 ", tail).replace("$", " ").split()))
        if written:
            return f"{text[: match.start()].rstrip(' ,;')}, {written}"
    return text


def _membership(tail: str) -> str | None:
    """Reads a tail as a qualifier, with further qualifiers behind it; returns None if it is something else."""
    flat = tail.strip(" ,;().}")
    flat = flat + "}" if flat.count("{") > flat.count("}") else flat
    for form in _READERS:
        match = form.fullmatch(flat)
        if match:
            found = match.groupdict()
            domain = _domain(found.get("kind"), found.get("set"), form is _READERS[-1])
            names = re.split(r"\s*,\s*and\s+|\s*,\s*|\s+and\s+", match.group("names"))
            known = all(re.fullmatch(r"\\?[A-Za-z](?:_.*)?|\\[a-z]+", name) for name in names)
            return ", ".join(f"{name} \\in {domain}" for name in names) if known else None
    return None


def _domain(kind: str | None, named: str | None, indexed: bool) -> str:
    if indexed:
        return "\\mathbb{N}"
    if named:
        return named if named.startswith("\\") else f"\\mathbb{{{named}}}"
    words = (kind or "").lower().split()
    letter = next((_DOMAINS[word.removesuffix("s")] for word in words if word.removesuffix("s") in _DOMAINS), "any")
    return f"\\mathbb{{{letter}}}{_PARTS.get(words[0], '') if words else ''}"

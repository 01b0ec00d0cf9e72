"""Finds the marks in words of a text: "the answer is", "Answer:", 答案是.

In: a text. Out: the places after which the text says what its answer is. :func:`register_mark` adds a mark.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from verifiers.read.languages import ENGLISH, LANGUAGES, Language
from verifiers.read.thoughts import lowered

MAX_MARKS = 24
"""Largest number of marks of one language that are read; the last marks count."""
_OWN: list[str] = []
_EDGE, _END = r"(?<![^\W_])", r"(?![^\W_]|[\u0900-\u0dff])"
_STOPS = r"(?!(?:whether|if|that|which|who|when|not|because|since|and|but|so|we|you|i|then|where)\b)"
_BETWEEN = (
    rf"(?:,[^.,;:\n?!]{{1,30}},)?(?:[^\S\n]{{1,4}}{_STOPS}[^\W_]{{1,30}}(?:'s)?"
    rf"|[^\S\n]{{1,4}}\$[^$\n]{{1,40}}\$){{0,8}}?"
)
_DECOR = r"(?:[*_\"”'’»]|\](?![^\[\]\n]{1,60}[;,][^\[\]\n]{1,60}[\[\]])){0,4}"
_POINT = (
    rf"{_DECOR}(?:\s?[(（][^()（）\n]{{1,40}}[)）])?{_DECOR}[^\S\n]{{0,4}}(?:[:：→⇒】]|=>?|[-–—]{{1,2}}>|[–—]"
    rf"|[^\S\n]-{{1,2}}[^\S\n]){_DECOR}"
)
_FORMULA = r"[*_]{0,3}[^\S\n]{0,4}(?=\$|\\\(|\\\[)"
_ABBREVIATED = r"(?<=ans\.)\s?(?=[\d$\\(-])"
_ALONE = r"(?:[*_]{0,3}[:：]?[*_]{0,3}[^\S\n]{0,4}(?=\n\s{0,40}\S))"
_LINE = r"(?:(?<=\n)|\A)[^\w\n]{0,16}(?:the )?(?:final |correct |our |my )?"
_BARE = r"[^\S\n]{0,4}(?=[\d$\\(（\[+\-−–=]|[A-Ea-e](?![a-z]))"
_NOT_HERE = re.compile(
    r"\b(?:if|whether|suppose|assume|assuming|assumes|unless|since|because|once|until|wrong|incorrect"
    r"|false|naive|tempting"
    r"|intermediate|previous|initial|partial|to|could|can|before|would be if|not the|not an"
    r"|no|not true|not the case|doubt|denies|deny|not (?:think|believe|say)"
    r"|(?:do|does|did|would|could|can)n['’]t (?:think|believe|say)"
    r"|(?:nobody|no one|people|everyone|someone|students?|others|many|most|some|one|you|they|he|she)\s(?:\w+\s)?"
    r"(?:think|believe|guess|say|assume|expect|claim|suppose)s?"
    r"|i (?:first|initially|originally|wrongly|mistakenly) (?:thought|believed|assumed|guessed|wrote|said)"
    r"|at first (?:(?:glance|sight),? )?it (?:seems|seemed|looks|looked|appears|appeared))\s+(?:that\s+)?"
    r"(?:the|our|my|an?)?\s?(?:final|correct|right)?\s?\Z|\b(?:if|whether|suppose|assume|unless|since|because)\b[^.,;:!?\n]*\Z"
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|likely|guess|guessing|might|unsure"
    r"|not (?:\w+ )?sure|not certain|wonder"
    r"|vielleicht|quizás|quizá|tal vez|peut-être|forse|talvez|возможно|może)\b|也许|可能|或许|たぶん|おそらく|아마"
)
_ELSEWHERE = re.compile(
    r"\b(?:for example|e\.g\.|for instance|examples?|hint|the format|previous|sub-?problem|analog\w+"
    r"|check|checking|verify|verifying)\b"
)
_OF_A_PART = re.compile(
    r"\b(?:to|for|of) (?:the )?(?:first|second|third|next|previous|other|last|sub-?\w+)\s(?:part|step|question|problem"
    r"|half|box|case|one)\b"
)
_HEDGED_LINK = re.compile(r"\b(?:could|might|may|can|would)\b")
_MODAL = re.compile(r"\b(?:must|should|has to|have to|ought to|shall|need|will|would|can only)\b")


@dataclass(frozen=True, slots=True)
class Mark:
    """One place where a text says what its answer is.

    start, end: the span of the mark itself; the answer is read from ``end``. weak: see `Language.weak`. hedged: as in
    "maybe the answer is". modal: as in "the answer must be". colon: the mark has no verb; it ends with a colon or is a
    separate line. void: the mark states nothing, as in "if the answer is" or "the wrong answer is".
    """

    start: int
    end: int
    language: Language
    weak: bool = False
    hedged: bool = False
    modal: bool = False
    colon: bool = False
    void: bool = False


def register_mark(mark: str) -> None:
    """Add a mark in words, such as ``"my verdict is"``. The answer follows the mark, with or without a colon.

    Raises ``ValueError`` for a mark without letters, ``TypeError`` for a mark that is not a text.
    """
    if not isinstance(mark, str):
        raise TypeError(f"mark must be str, not {type(mark).__name__}")
    if not any(char.isalpha() for char in mark):
        raise ValueError(f"mark: {mark!r} (accepted: a text with at least one letter)")
    _OWN.append(" ".join(mark.lower().split()))
    own_pattern.cache_clear()


@lru_cache(maxsize=1)
def own_pattern() -> re.Pattern[str] | None:
    """Return the pattern of the marks that users have added, or None if there are none."""
    if not _OWN:
        return None
    words = "|".join(r"\s{1,4}".join(map(re.escape, mark.split())) for mark in _OWN)
    return re.compile(rf"{_EDGE}(?:{words}){_DECOR}[^\S\n]{{0,4}}[:：=]?{_DECOR}")


@lru_cache(maxsize=128)
def _pattern(language: Language, weak: bool) -> re.Pattern[str]:
    nouns = "|".join(language.weak if weak else language.nouns)
    spaced = all(word.isascii() or word[0] < "\u0e00" or "\u0980" <= word[0] < "\u0d00" for word in language.keys)
    edge, end, gap = (_EDGE, _END, r"[^\S\n]{1,4}") if spaced else ("", "", r"[^\S\n]{0,4}")
    between = _BETWEEN.replace("(?!(?:", f"(?!(?:{nouns}|") if spaced else ""
    links = [_POINT, _FORMULA, _ABBREVIATED]
    if language.copulas:
        copulas = "|".join(sorted(language.copulas, key=len, reverse=True))
        links.insert(0, rf"{_DECOR}{between}{gap}(?P<copula>{copulas}){end}{_DECOR}[^\S\n]{{0,4}}[:：]?{_DECOR}")
    if language.bare:
        links.insert(0, _BARE)
    body = rf"{edge}(?:{nouns}){end}(?:{'|'.join(links)})"
    return re.compile(rf"{body}|(?P<line>{_LINE}(?:{nouns}){end}{_ALONE})")


def marks(text: str, low: str | None = None) -> list[Mark]:
    """Find the marks in words of a text, in order of their ends. Of marks with the same end, the longest is last."""
    low = lowered(text) if low is None else low
    found: list[Mark] = []
    for language in LANGUAGES.values():
        if any(key in low for key in language.keys):
            found += _of_language(low, language)
    own = own_pattern()
    if own is not None:
        last = deque(own.finditer(low), maxlen=MAX_MARKS)
        found += [Mark(match.start(), match.end(), ENGLISH) for match in last]
    found.sort(key=lambda mark: (mark.end, -mark.start))
    return found


def _of_language(low: str, language: Language) -> Iterator[Mark]:
    for weak in (False, True):
        if not (language.weak if weak else language.nouns):
            continue
        for match in deque(_pattern(language, weak).finditer(low), maxlen=MAX_MARKS):
            before = _clause_before(low, match.start())
            if match.group().startswith(("option", "choice")) and "(" in match.group():
                continue  # it is one of the listed options
            void = bool(_NOT_HERE.search(before) or _ELSEWHERE.search(before) or _ELSEWHERE.search(match.group()))
            copula = match.groupdict().get("copula") or ""
            hedged = bool(_HEDGE.search(before) or _HEDGE.search(match.group()) or _HEDGED_LINK.search(match.group()))
            hedged = hedged or bool(_OF_A_PART.search(match.group()) or _HEDGE.match(low, match.end()))
            yield Mark(
                match.start(),
                match.end(),
                language,
                weak=weak,
                hedged=hedged,
                void=void,
                modal=bool(_MODAL.search(copula)),
                colon=not copula,
            )


def _clause_before(low: str, at: int) -> str:
    """Return the text before a mark in its sentence, at most 80 characters."""
    before = low[max(0, at - 80) : at]
    cut = max(before.rfind(end) for end in ("\n", ". ", "! ", "? ", "。", "！", "？"))
    return before[cut + 1 :]

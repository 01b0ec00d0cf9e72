"""Reads the first complete answer phrase: what a text states directly after a mark, without its explanation.

In: the text that follows a mark. Out: the value and where its sentence ends. A clause that begins with "because",
"which", a comma or a bracket is an explanation. Further values belong to the answer only if they are of the same kind
("2, 3 and 5", "4 or 5").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from verifiers.quantities.spans import quantity_span
from verifiers.read.dressing import undressed
from verifiers.read.languages import ENGLISH, Language
from verifiers.read.masks import BLOCK, masked
from verifiers.read.notations import notation_span
from verifiers.read.parts import lines_of_parts
from verifiers.read.thoughts import lowered
from verifiers.read.values import is_bare, is_value, trimmed, value_in_prose

WINDOW = 2_000
"""Largest number of characters that are read after a mark."""
_OPENING = re.compile(
    r"(?:[\s:：*_✅👉🎉~|=]|(?<=[\n=])>|(?<=\n )>){0,80}"
    r"(?:(?:as follows|below|the following)\s?[:：]\s{0,8}|(?:given by|equal to)\s|\}\s{0,3}(?=[^}\s]))?[*_]{0,4}"
)
_BARS = re.compile(r"\|[^|\n]{1,30}\|\s?=")
_ABBREVIATION = re.compile(r"(?:\b(?:i\.e|e\.g|a\.m|p\.m|vs|cf|approx|ca|dr|mr|mrs|ms|st|no|etc))\Z", re.IGNORECASE)
_SENTENCE = re.compile(
    r"[.!?](?!\s?[=+/^])(?=[\"'”’»*_)\]`]{0,4}(?:\s|\Z|[A-Z<]))|[.](?=[\u3000-\uffff])|[。！？।॥؟]|\n|<(?=/?[a-z])|(?:\.{3}|…)(?!\s?\d)"
)
_ASIDE = re.compile(r"I hope it is correct|\n\s{0,10}\[?Note\b.*", re.DOTALL)
_CORRECTED = re.compile(r"not\s+[^,;.]{1,40}?,?\s+(?:but|it is|it's|rather)\s+(?:rather\s+)?")
_LETTER = rf"[^\W_{BLOCK}]"
_VALUE_SIGN = re.compile(rf"[\d{BLOCK}$€£¥+\-−–∞√π]|[^\W\d_]\b")


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a text states after a mark.

    answer: the value, or None if the text states none. end: the index in the given text where the value ends. dug: the
    value was found inside a sentence ("that she has 12 left"). question: the sentence ends with "?". last: nothing
    follows the sentence in its paragraph.
    """

    answer: str | None
    end: int = 0
    dug: bool = False
    question: bool = False
    last: bool = True


@dataclass(frozen=True, slots=True)
class _Clause:
    joint: str  # what comes before the clause: "", "list", "and", "or", "break"
    start: int
    end: int


@lru_cache(maxsize=64)
def _boundaries(language: Language) -> re.Pattern[str]:
    """Return the pattern of what separates clauses. The name of the matched group is the kind of the separation."""

    def words(*lists: tuple[str, ...]) -> str:
        spaced = [word for one in lists for word in one if word[0] < "\u0e00"]
        other = [word for one in lists for word in one if word[0] >= "\u0e00"]
        parts = [rf"(?<!{_LETTER}|\\)(?:{'|'.join(spaced)})(?!{_LETTER}|['’])"] if spaced else []
        return "|".join((*parts, *other)) or r"(?!)"

    own = () if language is ENGLISH else language.reasons
    reasons = words(ENGLISH.reasons, own)
    ands = words(ENGLISH.ands, () if language is ENGLISH else language.ands)
    ors = words(ENGLISH.ors, () if language is ENGLISH else language.ors)
    return re.compile(
        rf"(?P<break>\s{{0,8}}[,;，；]?\s{{0,8}}[(（—–-]{{0,2}}\s{{0,4}}(?:{reasons})\s{{0,8}}[,，]?)"
        rf"|(?P<or>\s{{0,8}}[,，]?\s{{0,8}}[(（]?(?:{ors})\s{{0,8}})"
        rf"|(?P<and>\s{{0,8}}[,，]?\s{{0,8}}(?:{ands})\s{{0,8}}|\s{{1,4}}&\s{{1,4}})"
        rf"|(?P<list>\s{{0,8}}[,;，；、](?=\s|[\u2e80-\uffff]|[*_\"”’]|{_LETTER}{_LETTER})[\"”’*_]{{0,3}}\s{{0,8}})"
        rf"|(?P<stop>\s{{1,8}}(?:[-–—]{{1,3}}|/|\||=>|⇒|→)\s{{1,8}}"
        rf"(?=(?!\d){_LETTER}(?!\d){_LETTER}|an? {_LETTER}{_LETTER})"
        rf"|\s{{0,8}}[—]\s{{0,8}}|[(（\[]|\s{{0,4}}[:：]\s{{1,8}}|[)）])"
    )


def first_phrase(text: str, language: Language = ENGLISH) -> Phrase:
    """Read the first complete answer phrase of a text that follows a mark."""
    window = text[:WINDOW].replace('\\"', ' "')
    lead = len(window) - len(window.lstrip(" \n:*_"))
    notation = notation_span(window[lead : lead + 600])
    opening = None if notation or _BARS.match(window, lead) else _OPENING.match(window)
    start = opening.end() if opening else lead
    parts = lines_of_parts(window[start:])
    if parts is not None:
        return Phrase(parts.answer, start + parts.end)
    low = lowered(window)
    corrected = _CORRECTED.match(low, start)
    start = corrected.end() if corrected else start
    shadow = masked(window)
    low = "".join(b if b == BLOCK else a for a, b in zip(low, shadow, strict=True))
    limit, sign = _sentence_end(low, start)
    question = sign in ("?", "？", "؟")
    last = not _ASIDE.sub("", window[limit + 1 :]).strip(" *_\"'”)$`.").partition("\n\n")[0].strip()
    if _is_conditional(low[start:limit]):
        return Phrase(undressed(window[start:limit]), limit, dug=True, question=question, last=last)
    span = notation or quantity_span(window[start:limit])
    clauses = _clauses(low, start, limit, language, start + span)
    for index, clause in enumerate(clauses):
        if clause.joint == "break":
            break
        whole = span if clause.start == start else 0
        found = (
            (window[start : start + whole], False) if whole else _value_of(window[clause.start : clause.end], language)
        )
        if found is not None:
            answer, dug = found
            end = clause.end
            named = _named_value(window, low, answer, clauses[index : index + 3], language)
            if named is not None:
                return Phrase(*named, dug, question, last)
            if window[: clause.end].rstrip(" *_\"”’'`").endswith(answer) or not dug:
                answer, end = _extended(window, low, answer, clauses[index:])
            other = _ALTERNATIVE.match(low, limit + 1) if end >= limit - 2 else None
            if other is not None and not question:
                second = first_phrase(window[other.end() :], language)
                if second.answer is not None and not second.dug:
                    return Phrase(f"{answer} \\text{{ or }} {second.answer}", other.end() + second.end, dug)
            return Phrase(answer, end, dug, question, last)
    return Phrase(None, limit, question=question, last=last)


def _sentence_end(low: str, start: int) -> tuple[int, str]:
    """Return where the sentence that begins at ``start`` ends, and the sign that ends it."""
    for match in _SENTENCE.finditer(low, start):
        at = match.start()
        if match.group() == "." and (_ABBREVIATION.search(low[max(0, at - 8) : at]) or _is_option(low, start, at)):
            continue
        if match.group() == "..." or match.group() == "…":
            return at, "..."
        return at, match.group()
    return len(low), ""


_ALTERNATIVE = re.compile(
    r"[\s*_.…]{0,8}(?:or\b|alternatively\b|maybe\b|perhaps\b|possibly\b)[\s,]{0,3}(?:(?:maybe|perhaps"
    r"|possibly|else|is it|it is|it could be|even)\s){0,2}"
)
_SKIPPED = re.compile(
    r"[\s,;:，；、(]*(?:so|then|thus|hence|therefore|donc|also|entonces|pues|quindi|portanto|então|dus"
    r"|значит|więc|也就是|所以|因此|即|つまり|즉)?[\s,;:，；、]*"
)


def _is_option(low: str, start: int, at: int) -> bool:
    """Whether a full stop follows the letter of an option at the start: "B. twelve"."""
    return (
        at == start + 1 and low[start] in "abcdefgh" and low[at + 1 : at + 2] == " " and low[at + 2 : at + 3].isalnum()
    )


_CONDITION = re.compile(r"\b(if|when|unless|otherwise|for|if not|in case|in the (?=\w+ (?:case|one)\b))")
_ELSE = re.compile(
    r"\b(?:if|when|for)\b[^\n]*,\s?(?:or )?else\b|\belse[\s:]{1,3}\W?\d|\bunless\b[^\n]*\b(?:then|in which case)\b"
    rf"|\([^()\n]{{1,40}}\)\s?,?\s?or\s\W{{0,2}}[\d{BLOCK}]"
)


def _is_conditional(low: str) -> bool:
    """Whether a sentence gives several values under several conditions. Then no value alone is the answer."""
    conditions = _CONDITION.findall(low)
    return "otherwise" in conditions or bool(_ELSE.search(low)) or any(conditions.count(one) > 1 for one in conditions)


def _clauses(low: str, start: int, limit: int, language: Language, held: int) -> list[_Clause]:
    """Split a sentence into clauses. The text up to ``held`` is one quantity and is not split."""
    clauses: list[_Clause] = []
    joint, at = "", start
    for match in _boundaries(language).finditer(low, held, limit):
        if not low[at : match.start()].strip() and _SKIPPED.fullmatch(match.group()):
            at = match.end()
            continue
        clauses.append(_Clause(joint, at, match.start()))
        joint, at = str(match.lastgroup), match.end()
    clauses.append(_Clause(joint, at, limit))
    return [one for one in clauses if one.joint in ("break", "stop") or low[one.start : one.end].strip()]


def _value_of(clause: str, language: Language) -> tuple[str, bool] | None:
    """Return (the value that a clause states, whether it was found inside a sentence), or None."""
    text = clause.strip()
    for closer in language.closers:
        text = re.sub(rf"{closer}\Z", "", text.rstrip("*_ ")).strip()
    text = undressed(text)
    return None if not text else value_in_prose(text)


def _extended(window: str, low: str, answer: str, clauses: list[_Clause]) -> tuple[str, int]:
    """Extend a value by further values of its kind that follow it in a list. Returns the answer and where it ends."""
    end = clauses[0].end
    numeric = _is_numeric(answer)
    pieces = [answer]
    pending = ""
    at = end
    for clause in clauses[1:]:
        if clause.joint in ("break", "stop"):
            break
        item = window[clause.start : clause.end].strip(" *_`.")
        if not item:
            pending = clause.joint
            continue
        if re.fullmatch(r"[A-J]", answer) and len(item) > 1:
            break
        if not _is_item(item, numeric, clause.joint == "or" or pending == "or"):
            break
        pieces.append(window[at : clause.start] + window[clause.start : clause.end].rstrip())
        at = end = clause.end
    joined = "".join(pieces)
    return (trimmed(undressed(joined.replace("**", ""))) if len(pieces) > 1 else answer), end


def _is_numeric(answer: str) -> bool:
    return bool(_VALUE_SIGN.match(masked(answer)) or re.search(r"\d", answer)) and answer.lower() not in ("a", "i")


_NAME = re.compile(
    r"the (?:[^\W\d_]{2,}\s){0,3}(?:sum|total|number|product|difference|amount|quotient|average|mean|value|square|cube"
    r"|root|probability|area|volume|length|remainder|ratio)\b",
    re.IGNORECASE,
)
_THAT_IS = re.compile(r"[\s,(—–-]*(?:which|that is|namely|i\.e\.|:)?[\s,]*")


def is_only_named(answer: str) -> bool:
    """Whether an answer names a quantity without its value: "the sum of all parts"."""
    return bool(_NAME.match(answer)) and not re.search(r"\d|[$\\]", answer)


def _named_value(
    window: str, low: str, answer: str, clauses: list[_Clause], language: Language
) -> tuple[str, int] | None:
    """Return the value, and its end, after a quantity that is only named: "the sum of 4 and 5, which is 9"."""
    if len(clauses) > 2 and clauses[1].joint == "and":
        clauses = clauses[1:]
    whole = window[clauses[0].start : clauses[0].end].strip()
    named = _NAME.match(answer) or (_NAME.match(whole) and not re.search(r"[\d$\\]", answer))
    if len(clauses) < 2 or not named or not _THAT_IS.fullmatch(low, clauses[0].end, clauses[1].start):
        return None
    said = re.sub(r"\A(?:is|are|equals)\s", "", window[clauses[1].start : clauses[1].end].strip())
    if not _is_item(said, True, False) or not re.search(r"\d", said):
        return None
    value = _value_of(said, language)
    return None if value is None else (value[0], clauses[1].end)


_REMARK = re.compile(r"(?:i mean|rather|(?:an?|our|one)\s[^\W\d_]{2,})\b", re.IGNORECASE)


def _is_item(item: str, numeric: bool, alternative: bool) -> bool:
    """Whether a clause is one more value of a list. ``numeric``: the list began with a number or formula, not words."""
    if not is_bare(item) or not is_value(item) or _REMARK.match(item):
        return False
    if alternative:
        return len(item.split()) <= 4
    begins = bool(_VALUE_SIGN.match(masked(item)))
    return (
        begins
        if numeric
        else (not item.lower().endswith("ly") and len(item.split()) <= 3 and not begins)
        or (not numeric and len(item) == 1)
    )

"""Reads a text without a mark: the text itself if it is an answer, otherwise the value of its last sentence.

In: the visible text of an answer or solution. Out: a text to compare.
"""

from __future__ import annotations

import re
from collections import deque

from verifiers.read.dressing import undressed
from verifiers.read.parts import labelled_parts
from verifiers.read.phrases import _is_conditional as is_conditional
from verifiers.read.values import is_value, trimmed, without_fillers

MAX_LINKS = 24
_LINKS = re.compile(
    r"(?:\b(?:is|are|was|equals|equal to|be|it's|is exactly|becomes|gives)\b|[:≈])[*_\s]{0,8}", re.IGNORECASE
)
_STOP = re.compile(r"I hope it is correct|\[?Note\b|\n\s{0,20}(?:#|Question:|Problem:|Q:)")
_SENTENCE_END = re.compile(
    r"(?<!\d)(?<!\\)[.!?](?=\s|$|[\"'*])|(?<=\d)[.!?](?=\s+[A-Z]|\s*$|\s*\n|[\"'*])|[。！？।]|\n"
)
_MATH = re.compile(
    r"\$\$(.{1,1500}?)\$\$|(?<!\\)\$((?:[^$\\]|\\.){1,1500}?)(?<!\\)\$|\\\((.{1,600}?)\\\)|\\\[(.{1,600}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?<![\w.^_{])(-?(?:\\?\$\s?)?(?:[1-9]\d{0,2}(?:(?:,|\{,\})\d{3})+"
    r"|\d+)(?:\.\d+)?(?:\s{0,3}/\s{0,3}\d+(?![\d.]))?|-?(?:\\?\$\s?)?\.\d+)(\s?\\?%)?"
)
_CONCLUSION_WORD = re.compile(r"\b(?:Therefore|Thus|Hence|So|Consequently)\b")
_CONCLUDING = re.compile(r"(?:Therefore|Thus|Hence|So|Consequently|In total|In conclusion)\b")
_LEADING = re.compile(
    r"(?:(?:and\s)?(?:therefore|thus|hence|so|consequently|finally|in conclusion|altogether|in total"
    r"|accordingly|as a result|it follows that|we get|we have"
    r"|we find(?: that)?|we obtain|this gives|∴|因此|所以|故|因此，|したがって|よって)[\s,:，：]{1,4})+",
    re.IGNORECASE,
)
_LEADING_CHINESE = re.compile(
    r"(?:(?!不|没|非)[\u4e00-\u9fff，]){0,14}(?:[一总]?共有?|还?剩下?|还?有|需要|得到?|等于|为|是)\s?(?=[-$\\\d])"
)
_REASON = re.compile(
    r"\s{0,8}[,;(—–-]?\s{0,4}\b(?:because|since|which|given that"
    r"|(?<!many )(?<!much )(?<!long )as(?! (?:many|much|long|large|old|tall|far|big|well)\b)|due to"
    r"|for the reason)\b",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"\W{0,4}(yes|no|true|false)\b\W{0,3}(?:[,.:;!—–-]\s{0,4}\S|\s(?:because|since|as|it|they|he|she"
    r"|this|that|the|there)\b)",
    re.IGNORECASE,
)
_TEXT_ONLY = re.compile(r"\$?\\(?:text|mbox|textbf|mathrm)\s?\{([^{}]*)\}\$?")
_OPTION = re.compile(r"[(（]?[A-J][)）.:]\s(?:[^\s.]+\s){0,11}[^\s.]+\.?")
_ASSIGNED = re.compile(r"(.{1,200}?),?\s(?:where|with)\s\$?([A-Za-z])\$?\s?=.{1,120}", re.DOTALL)
_VERBS = re.compile(
    r"(?:the|this|that|our|it)\b[^.,;:]{0,60}?\s?\b(converges|diverges|increases"
    r"|decreases)(?:\s(absolutely|conditionally|uniformly))?\W*(?:\s(?:by|because|since|when|as|for|due)\s[^\d]*)?\Z",
    re.IGNORECASE,
)
_ADJECTIVES = {"converges": "convergent", "diverges": "divergent", "increases": "increasing", "decreases": "decreasing"}
_FALLS_ON = re.compile(
    r"\b(?:on|in|called|named)\s(?:an?\s|the\s)?((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January"
    r"|February|March|April|May|June|July|August"
    r"|September|October|November|December)s?\W*\Z"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?:'[a-z]+)?(?![A-Za-z({^_])")
_TEXTED = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textrm|operatorname|textit)\s{0,3}\{[^{}]*\}"
    r"|\\begin\s{0,3}\{[^{}]*\}|\\end\s{0,3}\{[^{}]*\}|\\[A-Za-z]+"
)
_PROSE = re.compile(
    r"\b(?:the|is|are|was|we|so|thus|therefore|hence|it|it's|that|this|which|answer|find|have|has"
    r"|total|she|he|they|there|because|since|of|in|to|for|not|than|as|with|were|our|matrix)\b",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(
    r"[^A-Za-z]{0,3}(?:[A-Za-z]|[A-Za-z]\([A-Za-z]\)|\\[A-Za-z]+)?\s?(?:=|\\in\b|\\ne\b|[<>≤≥∈]"
    r"|[\d(\[{\\$])[^.;]{0,200}?[\s,]\s?(?:where|for all|for any|for every|with"
    r"|such that)\s[^.;]{1,120}\Z"
)


def concluded(text: str) -> str:
    """Return what a text without a mark states. This is the text itself if it is an answer, or if it holds no value."""
    bare = undressed(text)
    wrapped = _TEXT_ONLY.fullmatch(bare)
    if wrapped is not None and _SAID.match(wrapped[1]):
        bare = wrapped[1]
    if _OPTION.fullmatch(bare):
        return labelled_parts(bare) or bare
    assigned = _ASSIGNED.fullmatch(bare) if len(bare) < 400 and _QUALIFIED.match(bare) else None
    if assigned and not re.search(rf"(?<![A-Za-z]){assigned[2]}(?![A-Za-z])", assigned[1]):
        return assigned[1]
    if not is_prose(bare):
        return labelled_parts(bare) or (_prefixed(bare) if bare[:1].isalpha() or not bare.isascii() else bare)
    said = _SAID.match(bare)
    if said is not None:
        return said.group(1)
    parts = labelled_parts(bare)
    if parts is not None:
        return parts
    if len(bare) < 400 and _QUALIFIED.match(bare):
        return bare
    body = _STOP.split(bare, maxsplit=1)[0].strip() or bare
    sentence = last_sentence(body)
    value = value_of_sentence(sentence) if sentence else None
    return bare if value is None or value == trimmed(bare) else value


def _prefixed(text: str) -> str:
    """Remove "Therefore," or "answer:" from the start of a short answer."""
    match = _LEADING_CHINESE.match(text) or _LEADING.match(text)
    return text[match.end() :].rstrip(" .") if match and match.end() < len(text) else text


def is_prose(text: str) -> bool:
    """Whether a text is a sentence, not an answer. A sentence has words of ordinary language outside mathematics."""
    if len(text) > 4000:
        return True
    bare = _TEXTED.sub(" ", _MATH.sub(" ", text) if text.count("$") > 1 or "\\(" in text else text)
    return bool(_PROSE.search(bare)) or len(_WORDS.findall(bare)) > 3


def value_of_sentence(sentence: str) -> str | None:
    """Return the value that a sentence states: the whole sentence, or, in prose, what follows its last "is"."""
    text = trimmed(sentence)
    lead = _LEADING.match(text)
    concluding = lead is not None or bool(_CONCLUDING.match(text))
    text = text[lead.end() :].strip() if lead and text[lead.end() :].strip() else text
    text = _without_reason(text)
    if not text or not is_prose(text) or is_conditional(text.lower()):
        return text or None
    verb = _VERBS.search(text)
    if verb is not None:
        return " ".join(word for word in (verb.group(2), _ADJECTIVES[verb.group(1).lower()]) if word)
    day = _FALLS_ON.search(text)
    if day is not None:
        return day.group(1)
    bold = [match for match in _BOLD.findall(text) if is_value(match)]
    if bold:
        return undressed(bold[-1])
    mathematics = list(_MATH.finditer(text)) if "$" in text or "\\" in text else []
    for match in reversed(deque(_LINKS.finditer(text), maxlen=MAX_LINKS)):
        rest = without_fillers(trimmed(text[match.end() :]))
        denied = re.search(r"(?:\bnot|cannot|can't|n't|never)\s{0,3}\Z", text[: match.start()])
        if rest and not denied and not _inside(mathematics, match.start()) and not is_prose(rest):
            return rest
    segments = [segment for segment in mathematics if not is_label(segment)]
    if segments:
        return _joined(text, segments)
    return (_only_number(text) if concluding else None) or text


def _without_reason(text: str) -> str:
    """Remove the explanation of a sentence if the text before it states a value."""
    for match in _REASON.finditer(text):
        head = text[: match.start()].strip()
        if re.search(r"\d|\\|\$|\b(?:is|are|on|in)\b", head) and not re.search(
            r"\A(?:since|because|as|given)\b|\bnot\b", head, re.IGNORECASE
        ):
            inside = any(
                low < match.start() < high for low, high in (segment.span() for segment in _MATH.finditer(text))
            )
            if not inside and (_LINKS.search(head) or _FALLS_ON.search(head) or not is_prose(head)):
                return head
    return text


def _only_number(sentence: str) -> str | None:
    numbers = list(_NUMBER.finditer(sentence))
    if len(numbers) != 1 or len(re.findall(r"\d+", sentence)) != len(re.findall(r"\d+", numbers[0].group())):
        return None
    return "".join(part.strip() for part in numbers[0].groups() if part)


def last_number(text: str) -> str | None:
    """Return the last number of a text, or None if it has none."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    return None if last is None else "".join(group.strip() for group in last.groups() if group)


def is_label(match: re.Match[str]) -> bool:
    r"""Whether a math segment is a bare variable name, as in "the largest $n$ is"."""
    inner = next(g for g in match.groups() if g is not None).strip()
    return re.fullmatch(r"[a-zA-Z]|\\[a-z]+|[A-Z]{2,3}", inner) is not None


def _joined(text: str, segments: list[re.Match[str]]) -> str:
    first = last = len(segments) - 1
    while first > 0 and re.fullmatch(
        r"\s*(?:,|;|and|or|,\s*and|,\s*or)\s*", text[segments[first - 1].end() : segments[first].start()]
    ):
        first -= 1
    return trimmed(text[segments[first].start() : segments[last].end()])


def _inside(segments: list[re.Match[str]], at: int) -> bool:
    return any(match.start() < at < match.end() for match in segments)


def last_sentence(text: str) -> str | None:
    """Return the last sentence of a text, from its concluding word ("therefore") on."""
    tail = text[-4000:].rstrip()
    covered = [match.span() for match in _MATH.finditer(tail)]
    start = 0
    for match in _SENTENCE_END.finditer(tail):
        if match.end() < len(tail) and not any(low <= match.start() < high for low, high in covered):
            start = match.end()
    last = tail[start:].strip()
    mathematics = list(_MATH.finditer(last))
    for match in _CONCLUSION_WORD.finditer(last):
        if match.start() and not _inside(mathematics, match.start()):
            last = last[match.start() :]
            break
    return last or None

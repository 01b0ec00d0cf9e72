r"""Extraction: which part of a text is the answer that it gives.

In: the text of a solution, and the name of a style. Out: the answer as text, or None where the text gives none. Several
answers in one conclusion (``\boxed{1} and \boxed{2}``, "4 or 5") come out together, so that naming many answers is
never right merely because one of them is. It does not know what an answer means.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Callable

from verifiers.limits import MAX_ANSWER, MAX_TEXT
from verifiers.text import decoded

_BOXED = re.compile(r"(?<!\\)\\+(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
_BARE = re.compile(r"\\frac\s*\d\s*\d|\\?[A-Za-z]+|-?\d[\d.,/]*|\S")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_MARKER = re.compile(
    r"\b(?:final\s+)?(?:answer|result|solution)\b[*_\s]*"
    r"(?:(?:to\s+(?:the|this)\s+(?:problem|question))?\s*(?:is|are|=|will\s+be|would\s+be|should\s+be|must\s+be|comes\s+out\s+to)\b\s*:?|:|=|[*_]*\s*:|(?=\s*(?:\$|\\\()))[*_\s]*",
    re.IGNORECASE,
)
_STRONG_WORDS = re.compile(
    r"(?:\b(?:is|are|was|equals|equal to|be|it's|is exactly|becomes|gives)\b|[:≈])[*_\s]*", re.IGNORECASE
)
_STOP = re.compile(r"<\|[a-z_]*\|?>?|</s>|<eos>|I hope it is correct|\[?Note\b|\n\s*(?:#|Question:|Problem:|Q:)")
_SENTENCE_END = re.compile(r"(?<!\d)(?<!\\)[.!?](?=\s|$|[\"'*])|(?<=\d)[.!?](?=\s+[A-Z]|\s*$|\s*\n|[\"'*])|\n")
_MATH = re.compile(
    r"\$\$(.{1,1500}?)\$\$|(?<!\\)\$((?:[^$\\]|\\.){1,1500}?)(?<!\\)\$|\\\((.{1,600}?)\\\)|\\\[(.{1,600}?)\\\]",
    re.DOTALL,
)
_LAST_NUMBER = re.compile(
    r"(?<![\w.^_{])(-?(?:\\?\$\s*)?(?:[1-9]\d{0,2}(?:(?:,|\{,\})\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+(?![\d.]))?|-?(?:\\?\$\s*)?\.\d+)(\s?\\?%)?"
)
_CONNECTOR = re.compile(r"(?:\\(?:text|mbox|mathrm)\s*\{|\b)\s*(and|or|und|oder)\b|[,;&]", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])\(?\b([A-Z])\b\)?(?!\w)")

MAX_BOXES = 64
MAX_MARKERS = 24
_CONCLUSION_WORD = re.compile(r"\b(?:Therefore|Thus|Hence|So|Consequently)\b")
_CONCLUDING = re.compile(r"(?:Therefore|Thus|Hence|So|Consequently|In total|In conclusion)\b")
STYLES = ("math", "gsm8k", "boxed", "answer_is", "last_number", "choice")


def extract_answer(text: str | bytes | None, style: str = "math") -> str | None:
    r"""The answer that ``text`` gives, or None.

    Styles: ``boxed``: the last balanced ``\boxed{…}``, together with the boxes of the same conclusion. ``gsm8k``: after
    the last ``####``. ``answer_is``: after the last "the answer is". ``math``: those three in this order, then None.
    ``last_number``: as ``math``, then the last number of the text. ``choice``: the last option letter concluded.

    Raises ``ValueError`` for an unknown style, ``TypeError`` for a text of another type.
    """
    reader = _READERS.get(style) if isinstance(style, str) else None
    if reader is None:
        near = difflib.get_close_matches(str(style), STYLES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"style: {style!r} (accepted: {', '.join(STYLES)}){hint}")
    known = decoded(text, "text")
    if not known:
        return None
    answer = reader(known[-MAX_TEXT:])
    return answer if answer else None


def boxed(text: str) -> str | None:
    """The contents of the last balanced box, joined with those of the same conclusion."""
    found = _boxes(text)
    if not found:
        return None
    last = len(found) - 1
    first = last
    while first > 0 and _same_conclusion(text[found[first - 1][1] : found[first][0]]):
        first -= 1
    contents = list(dict.fromkeys(content for _, _, content in found[first : last + 1] if content))
    if first < last and len(contents) > 1:
        hedged = any(re.search(r"\bor\b", text[found[i][1] : found[i + 1][0]]) for i in range(first, last))
        return " \\text{ or } ".join(contents) if hedged else ", ".join(contents)
    return found[last][2] or None


def _boxes(text: str, nested: int = 0) -> list[tuple[int, int, str]]:
    """(start, end, content) of the balanced, not nested boxes among the last ``MAX_BOXES`` ones."""
    found: list[tuple[int, int, str]] = []
    end = 0
    for match in deque(_BOXED.finditer(text), maxlen=MAX_BOXES):
        if match.start() < end:
            continue
        at = match.end()
        if at < len(text) and text[at] == "{":
            close = _closing(text, at)
            if close is None:
                continue
            content, end = text[at + 1 : close].strip(), close + 1
        else:
            bare = _BARE.match(text, at)
            if not bare:
                continue
            content, end = bare.group().rstrip(".,"), bare.end()
        inner = _boxes(content, nested + 1) if nested < 3 and _BOXED.search(content) else []
        found.append((match.start(), end, inner[-1][2] if inner else content))
    return found


def _closing(text: str, opening: int) -> int | None:
    """The index of the brace that closes the one at ``opening``; None if it is never closed."""
    depth = 0
    for match in _BRACES.finditer(text, opening, opening + 2 * MAX_ANSWER):
        sign = match.group()
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def _same_conclusion(gap: str) -> bool:
    if len(gap) > 60:
        return False
    bare = re.sub(r"\$|\\[()\[\],;!: ]|\\q?quad|\\text|\\mbox|[{}\s.*]", " ", gap)
    words = bare.split()
    if not any(char.isalpha() for char in bare):
        return True
    if re.search(r"[.!?]\s|\n\s*\n", gap) and len(words) > 1:
        return False
    return (
        bool(_CONNECTOR.search(gap))
        and len(words) <= 6
        and not re.search(r"\b(?:no|not|wait|but|then|so|final)\b", gap, re.I)
    )


def after_hashes(text: str) -> str | None:
    """What follows the last ``####`` on its line."""
    found = None
    for match in _HASHES.finditer(text):
        if match.group(1).strip():
            found = match.group(1)
    return _trimmed(_STOP.split(found, maxsplit=1)[0]) if found else None


def answer_is(text: str) -> str | None:
    """What follows the last "the answer is", to the end of its sentence."""
    for match in reversed(deque(_MARKER.finditer(text), maxlen=MAX_MARKERS)):
        captured = _captured(text, match.end())
        if captured:
            return captured
    return None


def _captured(text: str, start: int) -> str | None:
    rest = text[start : start + 2000].lstrip(' \n\t"*')
    rest = _STOP.split(rest, maxsplit=1)[0]
    sentence = _sentence(rest)
    following = rest[len(sentence) :].lstrip(" .")
    if re.match(r"or\b|or,|alternatively", following, re.IGNORECASE):
        sentence = f"{sentence.rstrip('. ')} {_sentence(following)}"
    return conclusion_of(sentence)


def _sentence(text: str) -> str:
    """The text up to the end of its first sentence; marks inside mathematics do not end it."""
    covered = [match.span() for match in _MATH.finditer(text)]
    for match in _SENTENCE_END.finditer(text):
        if not any(start <= match.start() < end for start, end in covered):
            return text[: match.start()]
    return text


def conclusion_of(sentence: str) -> str | None:
    """The value that a sentence states: the whole of it, or what follows its last "is" where it is prose."""
    text = _trimmed(sentence)
    if not text:
        return None
    if is_prose(text):
        mathematics = list(_MATH.finditer(text))
        for match in reversed(deque(_STRONG_WORDS.finditer(text), maxlen=MAX_MARKERS)):
            rest = _trimmed(text[match.end() :])
            if rest and not _inside(mathematics, match.start()) and not is_prose(rest):
                return rest
        segments = [m for m in mathematics if not is_label(m)]
        if segments:
            return _joined(text, segments)
        stated = _stated_number(text)
        if stated:
            return stated
    return text


def _stated_number(sentence: str) -> str | None:
    """The only number of a concluding sentence ("Therefore, there are 12 such paths"); None for several or none."""
    if not _CONCLUDING.match(sentence):
        return None
    numbers = list(_LAST_NUMBER.finditer(sentence))
    if len(numbers) != 1 or len(re.findall(r"\d+", sentence)) != len(re.findall(r"\d+", numbers[0].group())):
        return None
    return "".join(part.strip() for part in numbers[0].groups() if part)


def is_label(match: re.Match[str]) -> bool:
    r"""Whether a math segment is a bare variable name, as in "the largest $n$ is"."""
    inner = next(g for g in match.groups() if g is not None).strip()
    return re.fullmatch(r"[a-zA-Z]|\\[a-z]+|[A-Z]{2,3}", inner) is not None


def _joined(text: str, segments: list[re.Match[str]]) -> str:
    last = len(segments) - 1
    first = last
    while first > 0 and re.fullmatch(
        r"\s*(?:,|;|and|or|,\s*and|,\s*or)\s*", text[segments[first - 1].end() : segments[first].start()]
    ):
        first -= 1
    return _trimmed(text[segments[first].start() : segments[last].end()])


def _inside(segments: list[re.Match[str]], at: int) -> bool:
    return any(match.start() < at < match.end() for match in segments)


_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?:'[a-z]+)?(?![A-Za-z({^_])")
_TEXTED = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textrm|operatorname|textit)\s*\{[^{}]*\}|\\begin\s*\{[^{}]*\}|\\end\s*\{[^{}]*\}|\\[A-Za-z]+"
)
_PROSE = re.compile(
    r"\b(?:the|is|are|was|we|so|thus|therefore|hence|it|it's|that|this|which|answer|find|have|has|total|she|he|they|there|because|since|of|in|to|for|not|than|as|with|were|our|matrix)\b",
    re.IGNORECASE,
)


def is_prose(text: str) -> bool:
    """Whether a text is a sentence rather than an answer: it has words of ordinary language outside mathematics."""
    if len(text) > 4000:
        return True
    bare = _TEXTED.sub(" ", _MATH.sub(" ", text) if text.count("$") > 1 or "\\(" in text else text)
    return bool(_PROSE.search(bare)) or len(_WORDS.findall(bare)) > 3


def _trimmed(text: str) -> str:
    text = text.strip('*_"` \n\t\r')
    tag = re.search(r"</?[a-z]{1,12}>\Z", text)
    text = (text[: tag.start()] if tag else text).rstrip().rstrip(".,;: \n")
    while text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    if text.endswith(("\\", "\\,")):
        text = text + " "
    return text


def _math(text: str) -> str | None:
    return boxed(text) or after_hashes(text) or answer_is(text)


def _last_number(text: str) -> str | None:
    found = _math(text)
    if found is not None:
        return found
    last = None
    for match in _LAST_NUMBER.finditer(text):
        last = match
    return None if last is None else "".join(g.strip() for g in last.groups() if g)


def _choice(text: str) -> str | None:
    for candidate in (boxed(text), after_hashes(text), answer_is(text)):
        if candidate is not None:
            return candidate
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines[-1].split()) <= 3:
        return _trimmed(lines[-1])
    bracketed = re.findall(r"\(([A-Z])\)", text)
    if bracketed:
        return str(bracketed[-1])
    letters = [letter for letter in _LETTER.findall(lines[-1]) if letter not in "AI"]
    return str(letters[-1]) if letters else None


_READERS: dict[str, Callable[[str], str | None]] = {
    "math": _math,
    "gsm8k": after_hashes,
    "boxed": boxed,
    "answer_is": answer_is,
    "last_number": _last_number,
    "choice": _choice,
}


def conclusion(text: str) -> str:
    """The answer in a text that may be a bare answer or a whole solution, for comparison; never empty of evidence.

    A text that is no prose is its own answer. Of prose: the last box, ``####``, "the answer is", the value that the
    last sentence states; else the text itself, which then does not parse.
    """
    if "boxed" in text or "\\fbox" in text:
        found = boxed(text)
        if found:
            return found
        text = re.sub(r"\\+(?:boxed|fbox)\s*\{?", "", text) if len(text) < 4000 else text
    found = after_hashes(text) if "####" in text else None
    if found or not is_prose(text):
        return found or text
    found = answer_is(text)
    if found:
        return found
    body = _STOP.split(text, maxsplit=1)[0].strip() or text
    sentence = _last_sentence(body)
    return (conclusion_of(sentence) if sentence else None) or text


def _last_sentence(text: str) -> str | None:
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

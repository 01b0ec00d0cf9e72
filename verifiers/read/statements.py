"""Finds every statement of an answer in a text, and the statement that counts.

In: the visible text of a solution, and the kinds of marks that are read. Out: what is stated, where, and how firmly.
The last mark that states something counts, unless the text takes it back later. An unclosed or empty last box states
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from verifiers.read.boxes import Box, boxes
from verifiers.read.dressing import undressed
from verifiers.read.hashes import hashes
from verifiers.read.marks import Mark, marks
from verifiers.read.parts import joined_parts
from verifiers.read.phrases import first_phrase, is_only_named
from verifiers.read.postfix import postfix_marks
from verifiers.read.retractions import retraction
from verifiers.read.tags import tags
from verifiers.read.values import is_bare, is_property, is_quality, is_value

Kind = Literal["box", "hash", "tag", "phrase"]
ALL: tuple[Kind, ...] = ("box", "hash", "tag", "phrase")
_DIGIT = re.compile(r"\d|\\|\$")
_LABEL = re.compile(
    r"(?:(?<=\n)|\A|(?<=[.;:,]\s))[ \t>*]{0,6}(?:part\s)?(?:[(\[]?(?P<label>[a-h]|[ivx]{1,4}"
    r"|\d{1,2})[)\].:]:?|(?P<bullet>[-*•·–]))(?=[\s$\\*])[^\n]{0,400}\Z",
    re.IGNORECASE,
)
_JOINER = re.compile(r"(?:\\(?:text|mbox|mathrm)\s*\{|\b)\s*(and|or|und|oder|y|et|ou)\b|[,;&、，]", re.IGNORECASE)
_BROKEN_OFF = re.compile(r"\b(?:no|not|wait|but|then|so|final|thus|hence|therefore|rather)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a text states at one mark.

    answer: the answer, or None if the mark states nothing. start, end: the span of the mark and the answer. firm: it is
    not a question, a hedge or a property ("must be an integer"), and its mark is not weak. ends: it may end a solution,
    because it is firm and was not found inside a longer sentence after a colon.
    """

    kind: Kind
    answer: str | None
    start: int
    end: int
    firm: bool = True
    ends: bool = True


def stated(text: str, kinds: Collection[Kind] = ALL) -> Statement | None:
    """Return the statement that counts, or None if the text has no mark.

    Its answer is None if the text takes the answer back without a replacement, if its box is empty or never closed, or
    if no mark states anything.
    """
    found = statements(text, kinds)
    spare: Statement | None = None
    for one in reversed(found):
        if one.answer is None and one.kind == "box":
            return one
        if one.answer is None:
            continue
        if one.firm:
            return _after_retraction(text, one, kinds)
        spare = spare or one
    if spare is not None:
        return _after_retraction(text, spare, kinds)
    return replace(found[-1], answer=None, firm=False, ends=False) if found else None


def _after_retraction(text: str, one: Statement, kinds: Collection[Kind]) -> Statement:
    assert one.answer is not None
    taken_back = retraction(text[one.end :], one.answer)
    if taken_back is None:
        return one
    instead = taken_back.instead if "phrase" in kinds else None
    return replace(one, answer=instead, end=len(text), ends=one.ends and instead is not None)


def statements(text: str, kinds: Collection[Kind] = ALL) -> list[Statement]:
    """Return what the text states at each mark of these kinds, in the order of the text."""
    found: list[Statement] = []
    held = _conclusions(text, boxes(text))
    if "box" in kinds:
        found += held
    if "hash" in kinds and "####" in text:
        found += [
            Statement("hash", phrase.answer, start, at + phrase.end)
            for start, at, phrase in hashes(text)
            if not _holds(held, at, phrase.end)
        ]
    if "tag" in kinds:
        found += [_tagged(start, end, content) for start, end, content in tags(text)]
    if "phrase" in kinds:
        found += _phrases(text, held if "box" in kinds else [])
    enclosing = [(one.start, one.end) for one in found if one.kind in ("tag", "box") and one.answer]
    found = [one for one in found if not any(low < one.start < high for low, high in enclosing)]
    return sorted(found, key=lambda one: one.start)


def _holds(held: list[Statement], at: int, length: int) -> bool:
    return any(at <= box.start < at + length + 2 for box in held)


def _tagged(start: int, end: int, content: str) -> Statement:
    inner = stated(content, ("box", "hash", "phrase")) if content else None
    if inner is not None and inner.answer is not None:
        answer: str | None = inner.answer
    elif is_bare(content):
        answer = undressed(content.rstrip(" .")) if is_value(content) else None
    else:
        answer = first_phrase(content).answer
    return Statement("tag", answer, start, end)


def _phrases(text: str, held: list[Statement]) -> list[Statement]:
    found = []
    for mark in marks(text):
        statement = _phrase_at(text, mark, held)
        if statement is not None:
            found.append(statement)
    for start, end, answer in postfix_marks(text):
        if not any(start <= box.start < end for box in held):
            found.append(Statement("phrase", answer, start, end))
    return found


def _phrase_at(text: str, mark: Mark, held: list[Statement]) -> Statement | None:
    rest = text[mark.end : mark.end + 2_000]
    phrase = first_phrase(rest, mark.language)
    if any(mark.end <= box.start <= mark.end + phrase.end + 1 for box in held):
        return None
    answer = None if mark.void else phrase.answer
    if answer is not None and ("boxed" in answer or "box" in answer):
        inner = boxes(answer)
        answer = (inner[-1].content or None) if inner else answer
    if answer is not None and phrase.dug and mark.colon and not phrase.last:
        answer = None
    if answer is not None and phrase.question:
        taken_back = retraction(text[mark.end + phrase.end + 1 :], answer)
        answer = taken_back.instead if taken_back else None
    if answer is not None and _echoes_prompt(answer):
        answer = None
    prop = answer is not None and (
        is_property(answer) or (mark.modal and not _DIGIT.search(answer) and not is_single(answer))
    )
    firm = not (mark.weak or mark.hedged or prop or mark.void)
    wordy = (
        answer is None
        or is_quality(answer)
        or is_only_named(answer)
        or (mark.colon and (phrase.dug or _is_wordy(answer)))
    )
    return Statement("phrase", answer, mark.start, mark.end + phrase.end, firm, firm and not wordy)


def _is_wordy(answer: str) -> bool:
    """Whether an answer has several words, begins with one and holds a digit: a solution may begin so after a colon."""
    return bool(re.match(r"[^\W\d_]{2,}\s", answer)) and bool(re.search(r"\d", answer))


def is_single(answer: str) -> bool:
    """Whether an answer is one letter."""
    return len(answer.strip("() .")) == 1


def _echoes_prompt(answer: str) -> bool:
    return bool(
        re.fullmatch(
            r"[\s.…_\[\]<>{}]*|(?:your|the|final|insert)?[ _]?(?:answer|number|letter)(?: here)?", answer, re.IGNORECASE
        )
    )


def _conclusions(text: str, found: list[Box]) -> list[Statement]:
    """Return one statement for each conclusion, which may hold several boxes."""
    grouped: list[list[Box]] = []
    for box in _affirmed(text, found):
        if grouped and box.content and grouped[-1][-1].content and _same_conclusion(text, grouped[-1][-1], box):
            grouped[-1].append(box)
        else:
            grouped.append([box])
    return [Statement("box", _content(text, group), group[0].start, group[-1].end) for group in grouped]


_DENYING = re.compile(r"\b(?:not|instead of|rather than|than)\s(?:the\s)?[$\\(\[{\s]*\Z", re.IGNORECASE)


def _affirmed(text: str, found: list[Box]) -> list[Box]:
    """Leave out the boxes that the text denies ("12, not 5"), unless it denies all of them."""
    kept = [box for box in found if not _DENYING.search(text[max(0, box.start - 40) : box.start])]
    return kept or found


def _content(text: str, group: list[Box]) -> str | None:
    contents = list(dict.fromkeys(box.content for box in group if box.content))
    if len(contents) < 2:
        return (group[-1].content or None) if len(group) == 1 or not contents else contents[-1]
    gaps = [text[one.end : two.start] for one, two in pairwise(group)]
    if any(re.search(r"\bor\b", gap) for gap in gaps):
        return " \\text{ or } ".join(contents)
    if _label(text, group[0]) and _label(text, group[1]):
        return joined_parts([box.content for box in group if box.content])
    return ", ".join(contents)


def _label(text: str, box: Box) -> str | None:
    match = _last_label(text, box)
    return match.group("label") if match else None


def _last_label(text: str, box: Box) -> re.Match[str] | None:
    """Return the last label before a box in its line: in "(a): 1. (b): " this is (b)."""
    before = text[max(0, box.start - 420) : box.start]
    line, found = before.rfind("\n") + 1, None
    match = _LABEL.search(before)
    while match is not None:
        found = match
        match = _LABEL.search(before, max(match.end(2), match.end(1), line) + 1)
    return found


def _item(text: str, box: Box) -> str | None:
    """Return the label or the bullet of the list item that holds a box, or None if there is none."""
    match = _last_label(text, box)
    return (match.group("label") or "-").lower() if match else None


def _same_conclusion(text: str, one: Box, two: Box) -> bool:
    gap = text[one.end : two.start]
    first, second = _item(text, one), _item(text, two)
    if (
        first is not None
        and second is not None
        and (first != second or first == "-")
        and len(gap) <= 600
        and _follows(first, second)
    ):
        return True
    if len(gap) > 60:
        return False
    bare = re.sub(r"\$|\\[()\[\],;!: ]|\\q?quad|\\text|\\mbox|[{}\s.*]", " ", gap)
    words = bare.split()
    if not any(char.isalpha() for char in bare):
        return "?" not in gap and "!" not in gap
    if re.search(r"[.!?]\s|\n\s*\n", gap) and len(words) > 1:
        return False
    return bool(_JOINER.search(gap)) and len(words) <= 6 and not _BROKEN_OFF.search(gap)


_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")


def _follows(first: str, second: str) -> bool:
    """Whether the second label directly follows the first: a, b; 1, 2; i, ii; two bullets."""
    if first == "-" or second == "-":
        return first == second
    if first.isdigit() and second.isdigit():
        return int(second) == int(first) + 1
    if first in _ROMAN and second in _ROMAN and _ROMAN.index(second) == _ROMAN.index(first) + 1:
        return True
    return len(first) == len(second) == 1 and ord(second) == ord(first) + 1

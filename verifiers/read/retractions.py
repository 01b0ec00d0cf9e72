"""Finds retractions: "no, that is wrong, it should be 6" takes back an answer, with or without a new one.

In: the text after a stated answer. Out: whether the answer still counts, and what replaces it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifiers.read.phrases import first_phrase
from verifiers.read.thoughts import lowered

WINDOW = 1_500
_START = (
    r"(?:\A|(?<=[.!?:;,\n(—–]))[\s*_(—–-]{0,8}(?:(?:hmm+|hm|oh|ah|uh|um|er|well|ok|okay|but|and|wait"
    r"|hold on|oops|ops)[,.!:; …-]{0,4}){0,3}"
)
_DENIED = re.compile(
    rf"{_START}(?:no|nope|nein|non|não|нет|いいえ)(?=[,.:;!—–]|\s+(?:wait|that|it|this|i|my|the answer)\b|\s*\Z)"
    r"|\b(?:that|this|it|which|answer|above|result|calculation|i|value|number|one)(?:\s(?:is|was"
    r"|looks|seems|must be|can't be|cannot be)|'s|(?<=that)s)\s"
    r"(?:\w+\s){0,2}?(?:wrong|incorrect|a mistake|an error|mistaken|not right|not correct|not true"
    r"|not it|off|too (?:big|small|large|high|low))\b(?!\s(?:to|that)\s)"
    r"|\b(?:that|this|it|answer)\s(?:isn't|is not|can't be|cannot be|can not be"
    r"|wasn't)\s(?:\w+\s)?(?:right|correct|true|it|possible)\b"
    r"|\b(?:i|we)(?:'ve| have)?\s(?:just\s)?(?:made|make)\s(?:an?|some)\s(?:\w+\s)?(?:mistake|error|slip)"
    r"|\bi was (?:wrong|mistaken)|\bmy (?:mistake|error|bad)\b"
    r"|\b(?:i|we) (?:miscalculated|misread|miscounted|misunderstood|forgot|mis-\w+|take (?:that|it) back"
    r"|retract)|\bscratch that|\bstrike that"
    rf"|{_START}(?:correction|erratum|edit)\b|\boops\b|\bon second thoughts?\b|\blet me (?:correct|fix|redo"
    rf"|recompute|recalculate|revise)\b|\bi meant?\b"
    r"|\b(?:or|but) rather\b|\bignore (?:that|this|the above)|\bdisregard\b|\bcrossed out\b"
    r"|\b(?:es|está) (?:incorrecto|mal|equivocad\w)|\b(?:c'est|est) (?:faux|incorrect)"
    r"|\b(?:das )?ist falsch|\bэто (?:неверно|неправильно)|\bè sbagliat|\bestá errad"
    r"|不对|不對|(?<![A-Za-z0-9])[错錯]了|有误|更正|算错|間違い|違います|틀렸|아니"
)
_DOUBTED = re.compile(
    rf"{_START}(?:wait|actually|hmm+|sorry|rather|make (?:it|that)|well actually|in fact, no|instead|hold on|espera"
    rf"|attends|moment mal|warte|(?:my )?apologies|i apologi[sz]e)\b"
    r"|\b(?:but|however)\b[^.!?\n]{1,80}\bso,?\s(?:it(?:'s| is| becomes| must be| should be)\s"
    r"|the (?:correct |right |true |real |actual |final )?answer (?:is|becomes|must be|should be)\s|(?=[-−$]?\d))"
    r"|等等|等一下"
)
_INSTEAD = re.compile(
    r"(?:\b(?:it|that|this|the (?:right |correct |true |real |actual |final |proper )?(?:answer|value"
    r"|number|result|total|sum|one)|answer|which|x|we)\s?"
    r"(?:\s?(?:actually|really|instead|then|therefore|thus|clearly))?\s?(?:should(?: actually"
    r"| really)? (?:be|have been|read)|must be|has to be|ought to be|is(?: actually| really| indeed"
    r"| in fact)?"
    r"|'s(?: actually| really)?|equals|becomes|would be|will be|comes (?:out )?to|get|gives)"
    r"|\bshould(?: actually| really)? (?:be|have been|read)"
    r"|\bmake (?:it|that)|\bi (?:meant|mean|get)|\bwe get|\brather|\binstead|\b(?:debe|debería"
    r"|sería) ser|\bserait|\bdevrait être|\bsollte|\bdovrebbe essere|\bdeveria ser|\bдолжно быть"
    r"|应该是|应为|应该为|應該是|而是|正しくは)[\s:,]{0,4}"
)
_DIRECT = re.compile(
    r"[\s,.:;!*_—–-]{0,8}(?:(?:so|thus|hence|therefore|then|rather|actually|wait|sorry|it is|it's"
    r"|make it|es|c'est|es ist|это)[\s,:]{1,3}){0,3}"
)
_REMARK_ON = re.compile(r"[\s*_$\"']*\d[\d.,]*\$?\s+(?:would|was|were|has|have|had|cannot|could|does|do|did)\b")
_CONFIRMED = re.compile(
    r"\b(?:is|was|looks|seems|'s)\s(?:\w+\s)?(?:right|correct|fine|ok|okay|true|consistent|valid)\b"
    r"|\b(?:yes|yep|correct|confirmed|indeed|matches|checks out|still holds|stands)\b"
)
_ASIDE = re.compile(r"i hope it is correct|\[?\bnote\b\s?:|\n\s{0,4}#{1,6}\s|\n-{3,}")


@dataclass(frozen=True, slots=True)
class Retraction:
    """An answer that the text takes back. instead: the answer that replaces it, or None."""

    instead: str | None


def retraction(after: str, answer: str = "") -> Retraction | None:
    """Find out whether the text after a stated answer takes it back. Returns None if the answer still counts.

    answer: the stated answer. If it holds a digit or a formula, a mere doubt ("wait", "actually") counts only before
    another answer that holds one.
    """
    numeric = bool(re.search(r"\d|\\|\$", answer))
    window = after[:WINDOW]
    low = lowered(window)
    aside = _ASIDE.search(low)
    low = low[: aside.start()] if aside else low
    denial = _last_denial(low, answer)
    if denial is not None:
        return Retraction(_instead(window[: len(low)], low, denial, strict=False))
    doubts = list(_DOUBTED.finditer(low))[-4:]
    for doubt in doubts:
        found = _instead(window[: len(low)], low, doubt.end(), strict=True)
        if found is not None and (not numeric or re.search(r"\d|\\", found)):
            return Retraction(found)
    return None


def _last_denial(low: str, answer: str) -> int | None:
    """Return where the last denial ends that does not answer a question. None if a confirmation follows it."""
    last: int | None = None
    named = (
        re.compile(rf"(?<![\w.]){re.escape(answer.lower()[:60])}\s(?:is|was)\s(?:wrong|incorrect|not right)\b")
        if answer
        else None
    )
    found = [*_DENIED.finditer(low), *(named.finditer(low) if named else ())]
    for match in sorted(found, key=lambda one: one.start()):
        before = low[: match.start()].rstrip()
        sentence = re.search(r"[.!?\n;](?=\s|\Z)", low[match.end() :])
        asked = sentence is not None and sentence.group() == "?"
        replies = before.endswith("?") and re.match(r"\W*(?:\w+\W+){0,2}no\b", match.group())
        if answer.lower() in ("no", "false") and re.search(r"\bnot\b|n't", match.group()):
            continue  # "no, it is not possible" repeats the answer "no"
        if not asked and not replies and "not wrong" not in match.group() and not _negated(low, match):
            last = match.end()
    if last is not None and _CONFIRMED.search(low[last:]) and not _INSTEAD.search(low[last:]):
        return None
    return last


def _negated(low: str, match: re.Match[str]) -> bool:
    """Whether a denial does not hold: "there is no mistake", "if that is wrong", "we see that it is not wrong"."""
    before = low[max(0, match.start() - 24) : match.start()]
    return bool(re.search(r"\b(?:if|unless|whether|were|had|nothing|never|suppose|assume|why)\s(?:\w+\s)?\Z", before))


def _instead(window: str, low: str, at: int, strict: bool) -> str | None:
    """Return what is stated after a denial that ends at ``at``: directly, or after "it should be"."""
    direct = _DIRECT.match(low, at)
    start = direct.end() if direct else at
    phrase = first_phrase(window[start:])
    if phrase.answer is not None and not phrase.dug and not phrase.question and _short(window, start, phrase.answer):
        return phrase.answer
    limit = _limit(low, at) if strict else len(low)
    for match in _INSTEAD.finditer(low, at, limit):
        phrase = first_phrase(window[match.end() :])
        if phrase.answer is not None and not phrase.question and re.search(r"\d|\\|\$|\A\W*\w{1,12}\Z", phrase.answer):
            return phrase.answer
    return None


def _short(window: str, start: int, answer: str) -> bool:
    """Whether a number or a formula begins at ``start``, as the replacement of an answer does."""
    return (
        bool(re.match(r"[\s*_$\"'(]*[-−+$€£\d\\]", window[start:]))
        and not re.match(r"\d+\s+(?:of|is|are)\b", answer)
        and not _REMARK_ON.match(window[start:])
    )


def _limit(low: str, at: int) -> int:
    """Return the end of the sentence that follows the sentence at ``at``."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|\Z)|\n", low[at:])][:2]
    return at + ends[-1] if len(ends) == 2 else len(low)

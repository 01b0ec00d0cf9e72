"""Options: an answer to multiple choice that gives a letter, its text, or both, where the options are not known.

In: two answers. Out: both, each without what only the other kind of answer has.
"""

from __future__ import annotations

import re

_LETTER = re.compile(r"(?:\\(?:text|mathrm|textbf|mathbf)\s?\{)?\(?([A-J])\)?\}?\.?")
_NAMED = re.compile(
    r"(?:\\(?:text|mathrm|textbf|mathbf)\s?\{\s?)?(?:(?:option|choice|answer|选项"
    r"|選項)\s?)?[(（\[]?\s?([A-Ja-j])\s?[)）\]]?\}?\s?[.:：]?",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"(?:\\(?:text|mathrm|textbf|mathbf)\s?\{)?(?:[(（\[]([A-Ja-j])[)）\]]\}?\s?[.:：]?"
    r"|([A-J])(?:\}?[.:：)]|\s?[–—])|([a-j])\))\s{0,3}(\S.*)",
    re.DOTALL,
)
_MAY_LABEL = re.compile(r"\A\s{0,3}(?:\$|\\\()?\s{0,3}\\(?:text|textbf|mathrm|mathbf|mbox|textrm)")
_OPTION_IN_MATH = re.compile(r"\$\s?(?:\\(?:text|mathrm|textbf|mathbf)\s?\{)?[(（]?[A-Ja-j][)）.:}$][^$]{0,200}\$?\Z")
_VALUE = re.compile(r"[\d\\$+-]|[^\W\d_]{2,}|[^\W\d_]\b")


_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|textrm)\s?\{([^{}]*)\}|\\[ ,;:]|\\q?quad|~")


def _plain(text: str) -> str:
    """The text without what wraps or spaces its label."""
    return (
        re.sub(r"\s{2,}", " ", _WRAPPER.sub(lambda match: f" {match[1] or ''} ", text)).strip()
        if "\\" in text
        else text
    )


def named_option(reference: str, answer: str) -> tuple[str, str]:
    """The two answers, so that "(B) 12", "B. twelve", "option B" and "(b)" are B where the other side is a capital
    letter.

    Where the other side is no letter, "(B) 12" is 12.
    """
    if len(answer) > 300 or len(reference) > 300:
        return reference, answer
    if "$" in answer and _OPTION_IN_MATH.match(answer):
        answer = answer.strip("$ ")
    if _MAY_LABEL.search(answer):
        answer = _plain(answer) if _LABELLED.fullmatch(_plain(answer)) else answer
    wanted = _LETTER.fullmatch(reference)
    if wanted is not None:
        return reference, _letter_of(answer)
    given = _LETTER.fullmatch(answer)
    if given is not None:
        labelled = _LABELLED.fullmatch(reference)
        return (
            (next(group for group in labelled.groups() if group).upper(), answer) if labelled else (reference, answer)
        )
    return _text_of(answer, reference), _text_of(reference, answer)


def _letter_of(answer: str) -> str:
    named = _NAMED.fullmatch(answer.strip())
    if named is not None and (len(answer.strip()) > 1 or answer.isupper() or answer.strip() in "bcd"):
        return named[1].upper()
    labelled = _LABELLED.fullmatch(answer.strip())
    if labelled is not None and _VALUE.match(labelled[4]):
        return next(group for group in labelled.groups() if group).upper()
    return answer


def _text_of(reference: str, answer: str) -> str:
    labelled = _LABELLED.fullmatch(answer.strip())
    if (
        labelled is None
        or _LABELLED.fullmatch(reference.strip()) is not None
        or (not labelled[4][0].isalnum() and labelled[4][0] not in "\\$-")
    ):
        return answer
    return (
        labelled[4]
        if re.match(r"[(（\[]?[A-J]", answer.strip()) and re.search(r"\s|[.:：]", answer[: -len(labelled[4])])
        else answer
    )

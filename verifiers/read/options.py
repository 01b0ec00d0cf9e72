"""Aligns two answers to multiple choice that give a letter, its text, or both, if the options are not known.

In: two answers. Out: both answers, each without the part (letter or text) that the other answer does not have.
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
    """Remove the LaTeX commands and spaces around the label of a text."""
    return (
        re.sub(r"\s{2,}", " ", _WRAPPER.sub(lambda match: f" {match[1] or ''} ", text)).strip()
        if "\\" in text
        else text
    )


def named_option(reference: str, answer: str) -> tuple[str, str]:
    """Return the two answers in a form that compares: both as letters, or both as texts.

    If the other side is a capital letter, "(B) 12", "B. twelve", "option B" and "(b)" become B. If the other side is
    not a letter, "(B) 12" becomes 12.
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

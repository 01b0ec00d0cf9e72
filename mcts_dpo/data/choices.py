"""Multiple choice: reads the texts of the choices from a row, and finds the letter of the right choice.

Choices are {text: [...], label: [...]}, {A: ..., B: ...}, a list of texts or of {text, label}, JSON of one of these,
or columns of their own (A, B, C, …; option_a, …; choice1, …). The right choice is given by its label, its letter ("b",
"(B)", "B. fire"), its text, or its number, counted from 0 or 1. An answer that names no choice stays as it is, and
`unparsable_answers` reports it. A number without a choice is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown
from mcts_dpo.data.answers import decimal_text, scalar_text

_ACCEPTED = "{text: [...], label: [...]}, {A: ..., B: ...} or a list, 2 to 26 of them"
_TEXTS, _LABELS = ("text", "value", "content"), ("label", "key", "letter", "id")
_OWN_COLUMN = re.compile(r"(?:(?:option|choice|op|ending)[ _-]?)([a-z]|\d)", re.IGNORECASE)
_OWN_LABEL = re.compile(r"\s*[(\[]?([A-Za-z])\s?[)\].:]\s*(\S.*)", re.DOTALL)
_DECORATED = re.compile(r"(?:(?:option|choice|answer)\s*:?\s*)?[(\[{]?\s*([A-Za-z]|\d{1,2})\s*[)\]}]?\s*[.:]?", re.I)
_WHOLE = re.compile(r"[+-]?\d+(?:\.0+)?")


@dataclass(frozen=True, slots=True)
class Choices:
    """The texts in the order of the letters A, B, …, and the data set's labels for them (empty: it has none)."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def choice_columns(names: Iterable[str], least: int = 3) -> list[str]:
    """The columns that hold one choice each, in order: A, B, C, … (`least` of them) or option_a, choice1, … (two)."""
    there = list(names)
    bare = [letter for letter in ascii_uppercase if letter in there]
    if len(bare) >= least and bare == list(ascii_uppercase[: len(bare)]):
        return bare
    keyed = {found.group(1).casefold(): name for name in there if (found := _OWN_COLUMN.fullmatch(name))}
    for keys in (ascii_uppercase.casefold(), "123456789", "0123456789"):
        run = [keyed[key] for key in keys[: len(keyed)] if key in keyed]
        if len(run) == len(keyed) >= 2:
            return run
    return []


def of_columns(values: Sequence[Any], where: str) -> Choices:
    """Choices from columns that hold one choice each. Empty columns at the end hold no choice."""
    texts = [scalar_text(value, where, "choice") or "" for value in values]
    while texts and not texts[-1]:
        texts.pop()
    return _checked(texts, (), where, values) if texts else Choices()


def of_value(value: Any, where: str) -> Choices:
    """Choices from one cell that holds all of them. A null or empty cell has none.

    Raises InputError, naming the place, for an unknown form, and for fewer than 2 or more than 26 choices.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _refusal(value, where) from None
    if value is None or value != value or (isinstance(value, list | dict) and not value):
        return Choices()
    texts, labels = _texts_and_labels(value, where)
    return _checked(
        [scalar_text(text, where, "choice") or "" for text in texts],
        [scalar_text(label, where, "label") or "" for label in labels],
        where,
        value,
    )


def _texts_and_labels(value: Any, where: str) -> tuple[Sequence[Any], Sequence[Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        text, label = _first(_TEXTS, value[0]), _first(_LABELS, value[0])
        if text is None or any(text not in item or (label is not None and label not in item) for item in value):
            raise _refusal(value, where)
        return [item[text] for item in value], [item[label] for item in value] if label else []
    if isinstance(value, list):
        return value, []
    if not isinstance(value, dict):
        raise _refusal(value, where)
    text = _first(_TEXTS, value)
    if text is not None:
        texts, labels = value[text], value.get(_first(_LABELS, value) or "", [])
        if not isinstance(texts, list) or not isinstance(labels, list) or len(labels) not in (0, len(texts)):
            raise _refusal(value, where)
        return texts, labels
    named = {str(name): item for name, item in value.items() if item is not None}
    if not all(len(name) == 1 or name.isdigit() for name in named):
        raise _refusal(value, where)
    order = sorted(named, key=lambda name: (len(name), name.casefold()))
    return [named[name] for name in order], order


def _first(names: Sequence[str], there: Mapping[Any, Any]) -> str | None:
    return next((name for name in names if name in there), None)


def _checked(texts: Sequence[str], labels: Sequence[str], where: str, value: Any) -> Choices:
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise _refusal(value, where)
    own = [_OWN_LABEL.fullmatch(text) for text in texts]
    if all(found and found.group(1).upper() == letter for found, letter in zip(own, ascii_uppercase, strict=False)):
        texts = [found.group(2).strip() for found in own if found]  # "A) 21": its letter is known already
    return Choices(tuple(texts), tuple(labels))


def _refusal(value: Any, where: str) -> InputError:
    return InputError(f"{where}: the choices are {shown(value)} (accepted: {_ACCEPTED})")


def letter_of(answer: Any, choices: Choices, first: int, where: str) -> str | None:
    """The letter of the right choice, or "A, C" for several. An answer that names no choice stays as it is.

    first: the number of the first choice, 0 or 1. Raises InputError, naming the place, for a number without a choice.
    """
    if isinstance(answer, list | tuple):
        letters = [letter_of(item, choices, first, where) for item in answer]
        return ", ".join(letter for letter in letters if letter) or None
    text = scalar_text(answer, where, "answer")
    if not text or isinstance(answer, bool):
        return text
    if not isinstance(answer, str) and _WHOLE.fullmatch(text):
        return _named(text, choices.labels) or _at(int(text), choices, first, where)
    found = _named(text, choices.labels, ascii_uppercase[: len(choices.texts)], choices.texts) or _loosely(
        text, choices
    )
    numbered = any(_WHOLE.fullmatch(one) for one in choices.texts)
    if found is None and _WHOLE.fullmatch(text) and not numbered:  # a table of text alone: CSV
        return _named(decimal_text(float(text)), choices.labels) or _at(int(float(text)), choices, first, where)
    return found or text


def _named(text: str, *names: Sequence[str]) -> str | None:
    return next((ascii_uppercase[list(some).index(text)] for some in names if text in some), None)


def _loosely(text: str, choices: Choices) -> str | None:
    """The letter that a text means, whatever its case and brackets. The text of a choice may follow the letter."""
    letters, texts = ascii_uppercase[: len(choices.texts)], [one.casefold() for one in choices.texts]
    bare = _DECORATED.fullmatch(text)
    if bare:
        found = _named(bare.group(1).casefold(), [one.casefold() for one in choices.labels])
        found = found or _named(bare.group(1).upper(), letters)
        if found:
            return found
    labelled = _OWN_LABEL.fullmatch(text)
    if labelled and _named(labelled.group(2).strip().casefold(), texts) == labelled.group(1).upper():
        return labelled.group(1).upper()
    return _named(text.casefold(), texts)


def _at(place: int, choices: Choices, first: int, where: str) -> str:
    count = len(choices.texts)
    if 0 <= place - first < count:
        return ascii_uppercase[place - first]
    by_text = _named(str(place), choices.texts)
    if by_text:
        return by_text
    other = 1 - first
    hint = f"; choice_index={other} counts from {other}" if 0 <= place - other < count else ""
    raise InputError(f"{where}: the answer is choice {place} (accepted: {first} to {first + count - 1}{hint})")

"""Grouping answers by equality, for majority votes.

In: answers as text. Out: classes of indices. It does not know which answer is right.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifiers.core import verify
from verifiers.exact import quantity
from verifiers.identity import identity_key
from verifiers.limits import MAX_ANSWER, TooLarge
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.read import conclusion
from verifiers.text import decoded


def equivalence_classes(answers: Sequence[str | bytes | None], *, policy: Policy = DEFAULT_POLICY) -> list[list[int]]:
    """Group ``answers`` into classes of equal ones: lists of indices, in order of first appearance.

    None and empty answers are in no class. Equality under a lenient policy is not transitive (``10%`` equals ``0.1``
    and ``10``); an answer joins the first class whose first member it equals, and an identical answer always wins.
    Raises ``TypeError`` for an element that is not text.
    """
    if isinstance(answers, (str, bytes)):
        raise TypeError(f"answers must be a sequence of answers, not {type(answers).__name__}")
    classes: list[list[int]] = []
    representatives: list[str] = []
    known: dict[object, int] = {}
    for index, raw in enumerate(answers):
        text = decoded(raw, f"answers[{index}]")
        if text is None or not text.strip():
            continue
        key = _key(text)
        place = known.get(key)
        if place is None:
            place = next((i for i, other in enumerate(representatives) if verify(other, text, policy=policy)), None)
        if place is None:
            place = len(classes)
            classes.append([])
            representatives.append(text)
        known[key] = place
        classes[place].append(index)
    return classes


def _key(text: str) -> object:
    if len(text) > MAX_ANSWER:
        return text
    text = conclusion(text)
    try:
        number = quantity(text)
    except TooLarge:
        return text
    if number is None:
        return identity_key(text)
    return number.value, number.unit.dims, number.unit.factor, number.kind

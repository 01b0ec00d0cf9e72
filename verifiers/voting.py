"""Grouping answers by equality, for majority votes, within one budget of time for the whole vote.

In: answers as text. Out: classes of indices.

Cheap comparisons come first: equal keys (the same text, number, or canonical form) meet by hashing; values that differ
in double precision are told apart without reading them again; then the layers that run in this process; proofs last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifiers.allowance import CALLER_UNITS, Spent, allowance
from verifiers.api import cheap_verdict
from verifiers.compare import machine
from verifiers.compare.canonical import canonical
from verifiers.compare.identity import identity_key
from verifiers.compare.polynomials import Unable
from verifiers.limits import MAX_ANSWER, MAX_TEXT, TooLarge, Unparsed
from verifiers.parse.parser import parse
from verifiers.parse.tree import is_scalar, symbols
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.quantities.exact import quantity
from verifiers.read import conclusion
from verifiers.text import decoded

if TYPE_CHECKING:
    from verifiers.prove.pool import VerifierPool

VOTE_SECONDS = 2.0
"""What one vote may take, unless it is told otherwise; a start of the workers, once in a process, is not counted."""
FIRST_TRY = 0.2
"""Share of the deadline that a proof gets before the others have had a turn; then each gets the whole of it, once."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The classes of a vote.

    ``classes``: lists of indices of equal answers, in order of first appearance. ``undecided``: pairs of classes on
    which no verdict was reached within the budget; they stand apart.
    """

    classes: list[list[int]]
    undecided: int = 0


@dataclass(slots=True)
class _Class:
    """One class under way. ``text``: of its first member. ``value``: that as a closed number, if it is one.
    ``open``: earlier classes that it may turn out to equal."""

    text: str
    members: list[int]
    value: machine.Value | None
    open: list[int] = field(default_factory=list)


def equivalence_classes(
    answers: Sequence[str | bytes | None], *, policy: Policy = DEFAULT_POLICY, seconds: float = VOTE_SECONDS
) -> list[list[int]]:
    """Group ``answers`` into classes of equal ones: lists of indices, in order of first appearance.

    None, empty answers and texts that state none are in no class. Equality under a lenient policy is not transitive
    (``10%`` equals ``0.1`` and ``10``); an answer joins the first class whose first member it equals, and an identical
    answer always wins. ``seconds``: of the whole vote (above 0); answers that could not be compared
    within it stay apart, and :func:`grouped` counts them. Raises ``TypeError`` for an element that is not text.
    """
    return grouped(answers, policy=policy, seconds=seconds).classes


def grouped(
    answers: Sequence[str | bytes | None], *, policy: Policy = DEFAULT_POLICY, seconds: float = VOTE_SECONDS
) -> Grouping:
    """As :func:`equivalence_classes`, with the number of pairs of classes that stayed undecided."""
    if isinstance(answers, (str, bytes)):
        raise TypeError(f"answers must be a sequence of answers, not {type(answers).__name__}")
    if not seconds > 0:
        raise ValueError(f"seconds: {seconds!r} (accepted: above 0)")
    begun = time.monotonic()
    classes: list[_Class] = []
    known: dict[object, int] = {}
    for index, raw in enumerate(answers):
        text = decoded(raw, f"answers[{index}]")
        if text is None or not text.strip() or (len(text) <= MAX_TEXT and not conclusion(text)):
            continue
        key, form, value = _keys(text)
        place = known.get(key)
        if place is None and form in known and cheap_verdict(classes[known[form]].text, text, policy):
            place = known[form]
        if place is None:
            place = _place(classes, text, value, policy, begun + seconds)
        known[key] = place
        if form is not None:
            known.setdefault(form, place)
        classes[place].members.append(index)
    undecided = _proved(classes, policy, seconds - (time.monotonic() - begun))
    return Grouping([sorted(one.members) for one in classes if one.members], undecided)


def _place(classes: list[_Class], text: str, value: machine.Value | None, policy: Policy, end: float) -> int:
    """The first class that an answer joins without a proof; a new one, with the classes left open, if it joins none."""
    new = _Class(text, [], value)
    for place, other in enumerate(classes):
        if value is not None and other.value is not None and _far(value, other.value):
            continue
        verdict = cheap_verdict(other.text, text, policy) if time.monotonic() < end else None
        if verdict:
            return place
        if verdict is None or verdict.undecided:
            new.open.append(place)
    classes.append(new)
    return len(classes) - 1


def _far(a: machine.Value, b: machine.Value) -> bool:
    """Whether two closed values without units differ beyond any rounding that a policy may forgive."""
    return abs(a[0] - b[0]) > 0.02 * max(abs(a[0]), abs(b[0])) + 8 * (a[1] + b[1]) + 1e-290


def _keys(text: str) -> tuple[object, object, machine.Value | None]:
    """A key that only equal answers share, one that most equal expressions share (None: none), and the value of a
    closed number without a unit."""
    if len(text) > MAX_ANSWER:
        return text, None, None
    text = conclusion(text)
    try:
        number = quantity(text)
        if number is not None:
            return (number.value, number.unit.dims, number.unit.factor, number.kind), None, None
        with allowance(CALLER_UNITS):
            return identity_key(text) or text, *_form_and_value(text)
    except (TooLarge, Unparsed, Spent, RecursionError, MemoryError, OverflowError, ValueError):
        return identity_key(text) or text, None, None


def _form_and_value(text: str) -> tuple[object, machine.Value | None]:
    readings = parse(text)
    if len(readings) != 1 or not is_scalar(readings[0]):
        return None, None
    form, value = None, None
    with suppress(machine.Unfit):
        value = None if symbols(readings[0]) else machine.evaluate(readings[0], {})
    with suppress(Unable):
        form = "form", canonical(readings[0]).key()
    return form, value


def _proved(classes: list[_Class], policy: Policy, seconds: float) -> int:
    """Join the classes that a proof within so many seconds shows to be equal. Returns the pairs left undecided."""
    if not any(one.open for one in classes):
        return 0
    from verifiers.prove.pool import default_pool

    pool = default_pool()
    pool.prepare()
    end = time.monotonic() + seconds
    for limit in (FIRST_TRY * pool.deadline, pool.deadline):
        for place in range(len(classes)):
            _settle(classes, place, pool, policy, limit, end)
    return sum(len(one.open) for one in classes)


def _settle(classes: list[_Class], place: int, pool: VerifierPool, policy: Policy, limit: float, end: float) -> None:
    """Ask, in order, whether a class equals the earlier ones it may equal; it joins the first that it does."""
    mine, still = classes[place], []
    for earlier in mine.open:
        left = min(limit, end - time.monotonic())
        if not classes[earlier].members:  # it has joined one of which the same was asked, or is
            continue
        verdict = pool.prove_within(left, classes[earlier].text, mine.text, policy) if left > 0 else None
        if verdict:
            classes[earlier].members += mine.members
            mine.members, mine.open = [], []
            return
        if verdict is None or verdict.undecided:
            still.append(earlier)
    mine.open = still

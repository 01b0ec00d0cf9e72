"""Groups equal answers for a majority vote, within one budget of time for the whole vote.

In: answers as text. Out: classes of indices.

Cheap comparisons come first. Hashing joins answers with equal keys: the same text, number, or canonical form. Values
that differ in double precision are unequal, and are not read again. Then come the layers that run in this process.
Proofs come last.
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
"""Default budget of one vote, in seconds. The start of the workers, once in a process, does not count."""
FIRST_TRY = 0.2
"""Fraction of the deadline that each proof gets in the first round. In the second round, each gets all of it, once."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The classes of a vote.

    ``classes``: lists of indices of equal answers, in order of first appearance. ``undecided``: the number of pairs of
    classes without a verdict within the budget; these classes stay separate.
    """

    classes: list[list[int]]
    undecided: int = 0


@dataclass(slots=True)
class _Class:
    """One class while the vote runs. ``text``: the text of its first member. ``value``: the value of that text, if it
    is a closed number. ``open``: earlier classes that may still equal this one."""

    text: str
    members: list[int]
    value: machine.Value | None
    open: list[int] = field(default_factory=list)


def equivalence_classes(
    answers: Sequence[str | bytes | None], *, policy: Policy = DEFAULT_POLICY, seconds: float = VOTE_SECONDS
) -> list[list[int]]:
    """Group ``answers`` into classes of equal answers. A class is a list of indices, in order of first appearance.

    None, empty answers and texts that state no answer are in no class. Equality under a lenient policy is not
    transitive (``10%`` equals ``0.1`` and ``10``). An answer joins the first class whose first member equals it, but an
    identical answer always wins. ``seconds``: the budget of the whole vote (above 0). Answers that could not be
    compared within the budget stay separate, and :func:`grouped` counts them. Raises ``TypeError`` for an element that
    is not text.
    """
    return grouped(answers, policy=policy, seconds=seconds).classes


def grouped(
    answers: Sequence[str | bytes | None], *, policy: Policy = DEFAULT_POLICY, seconds: float = VOTE_SECONDS
) -> Grouping:
    """Group answers as :func:`equivalence_classes` does, and count the pairs of classes that stayed undecided."""
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
    """Return the index of the first class that an answer joins without a proof.

    If it joins none, a new class is added. Its ``open`` holds the classes that were not decided.
    """
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
    """Return two keys and a value. Only equal answers share the first key. Most equal expressions share the second key
    (None if there is no such key). The value is that of a closed number without a unit."""
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
    """Join the classes that a proof shows to be equal within ``seconds``. Returns the number of undecided pairs."""
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
    """Compare a class, in order, with the earlier classes that it may equal, and join it to the first equal one."""
    mine, still = classes[place], []
    for earlier in mine.open:
        left = min(limit, end - time.monotonic())
        if not classes[earlier].members:  # it has joined a class with which this one is compared anyway
            continue
        verdict = pool.prove_within(left, classes[earlier].text, mine.text, policy) if left > 0 else None
        if verdict:
            classes[earlier].members += mine.members
            mine.members, mine.open = [], []
            return
        if verdict is None or verdict.undecided:
            still.append(earlier)
    mine.open = still

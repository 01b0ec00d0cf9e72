"""Verification in layers, cheapest first: the one entry point behind :func:`verifiers.verify`.

In: a reference and an answer as text (bare answers or whole solutions) and a policy. Out: a verdict, never an
exception, whatever the text. It does not know processes: what needs proof is handed down.
"""

from __future__ import annotations

from verifiers.exact import Quantity, compare_quantities, quantity
from verifiers.extraction import conclusion
from verifiers.identity import identity_key, is_words
from verifiers.limits import MAX_ANSWER, MAX_TEXT, TooLarge
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.text import decoded, has_damage
from verifiers.verdict import Verdict


def verify(reference: str | bytes | None, answer: str | bytes | None, *, policy: Policy = DEFAULT_POLICY) -> Verdict:
    """Compare ``answer`` with ``reference``.

    Both may be bare answers (``\\frac{1}{2}``, ``$1,200``) or whole solution texts, of which the conclusion counts.
    Returns a :class:`Verdict`; only ``equal`` is truthy. None, undecodable bytes and unreadable text are ``unparsed``,
    what is beyond the fixed bounds is ``too_large``. Raises ``TypeError`` for an argument of another type.
    """
    if type(reference) is str and type(answer) is str and len(reference) < 32 and len(answer) < 32:
        try:
            a, b = quantity(reference), quantity(answer)
        except TooLarge:
            a = b = None
        if a is not None and b is not None:
            return _exact(a, b, policy)
    left, right = decoded(reference, "reference"), decoded(answer, "answer")
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a Policy, not {type(policy).__name__}")
    for side, text in (("reference", left), ("answer", right)):
        if text is None or not text.strip():
            return Verdict("unparsed", reason=f"the {side} is missing")
        if len(text) > MAX_TEXT:
            return Verdict("too_large", reason=f"the {side} has {len(text)} characters (at most {MAX_TEXT})")
    assert left is not None
    assert right is not None
    try:
        return _layers(left, right, policy)
    except TooLarge as error:
        return Verdict("too_large", reason=str(error))
    except (RecursionError, MemoryError, OverflowError) as error:
        return Verdict("too_large", reason=f"{type(error).__name__} while reading")


def _layers(left: str, right: str, policy: Policy) -> Verdict:
    left, right = conclusion(left), conclusion(right)
    for side, text in (("reference", left), ("answer", right)):
        if len(text) > MAX_ANSWER:
            if left == right:
                return Verdict("equal", "identity", left, right, "the same text")
            return Verdict("too_large", reason=f"the {side} has {len(text)} characters (at most {MAX_ANSWER})")
        if has_damage(text):
            return Verdict("unparsed", reason=f"the {side} holds control characters")
    a_key, b_key = identity_key(left), identity_key(right)
    if a_key == b_key and a_key:
        return Verdict("equal", "identity", a_key, b_key, "the same text")
    a, b = quantity(left), quantity(right)
    if a is not None and b is not None:
        return _exact(a, b, policy)
    if is_words(left) and is_words(right):
        return Verdict("unequal", "identity", a_key, b_key, "different words")
    unread = " and ".join(side for side, read in (("reference", a), ("answer", b)) if read is None)
    reason = f"the {unread} is not a number and the texts differ"
    return Verdict("unparsed", None, a.text if a else None, b.text if b else None, reason)


def _exact(a: Quantity, b: Quantity, policy: Policy) -> Verdict:
    same, reason = compare_quantities(a, b, policy)
    return Verdict("equal" if same else "unequal", "exact", shown(a), shown(b), reason)


def shown(value: Quantity) -> str:
    """The canonical spelling of a quantity with its unit."""
    return value.text if not value.unit.name else f"{value.text} {value.unit.name}"

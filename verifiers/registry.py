"""Finds a verifier by its name, so that a configuration file can choose one.

In: a name. Out: a function ``(reference, answer, *, policy) -> Verdict``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from verifiers.api import verify
from verifiers.choice import verify_choice
from verifiers.limits import TooLarge
from verifiers.literals import verify_python
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.quantities.exact import compare_quantities, quantity
from verifiers.quantities.written import Quantity
from verifiers.read import extract_answer
from verifiers.text import decoded
from verifiers.verdict import Verdict

Verifier = Callable[..., Verdict]

_REGISTRY: dict[str, Verifier] = {}


def register(name: str, verifier: Verifier) -> None:
    """Add a verifier under a name. Raises ``ValueError`` if the name is taken, ``TypeError`` if it is not callable."""
    if not callable(verifier):
        raise TypeError(f"verifier must be callable, not {type(verifier).__name__}")
    if name in _REGISTRY:
        raise ValueError(f"verifier {name!r} is already registered")
    _REGISTRY[name] = verifier


def get_verifier(name: str) -> Verifier:
    """Return the verifier of that name.

    Raises ``ValueError`` for an unknown name; the message lists the accepted names and the nearest spelling.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(str(name), _REGISTRY, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"verifier: {name!r} (accepted: {', '.join(_REGISTRY)}){hint}")


def verifier_names() -> tuple[str, ...]:
    """Return the names of all registered verifiers."""
    return tuple(_REGISTRY)


def verify_exact(
    reference: str | bytes | None, answer: str | bytes | None, *, policy: Policy = DEFAULT_POLICY
) -> Verdict:
    """Compare two texts exactly, without their outer white space. ``policy`` has no effect."""
    left, right = decoded(reference, "reference"), decoded(answer, "answer")
    if left is None or right is None:
        return Verdict("unparsed", reason=f"the {'reference' if left is None else 'answer'} is missing")
    a, b = left.strip(), right.strip()
    same = a == b
    return Verdict("equal" if same else "unequal", "identity", a, b, "the same text" if same else "different texts")


def verify_numeric(
    reference: str | bytes | None, answer: str | bytes | None, *, policy: Policy = DEFAULT_POLICY
) -> Verdict:
    """Compare two numbers by the rule of GSM8K.

    Each side is a bare number or a text. A text gives the number of its conclusion, or else its last number.
    """
    read: list[Quantity] = []
    for side, raw in (("reference", reference), ("answer", answer)):
        text = decoded(raw, side)
        try:
            number = None if text is None or len(text) > 64 else quantity(text)
            if number is None:
                found = extract_answer(text, "last_number")
                number = None if found is None else quantity(found)
        except TooLarge as error:
            return Verdict("too_large", reason=str(error))
        if number is None:
            return Verdict("unparsed", None, read[0].text if read else None, None, f"the {side} gives no number")
        read.append(number)
    same, reason = compare_quantities(read[0], read[1], policy)
    return Verdict("equal" if same else "unequal", "exact", read[0].text, read[1].text, reason)


register("math", verify)
register("numeric", verify_numeric)
register("choice", verify_choice)
register("exact", verify_exact)
register("python", verify_python)

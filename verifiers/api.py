"""Compares two answers in layers, cheapest first. It is the one entry point behind :func:`verifiers.verify`.

In: a reference and an answer as text (bare answers or whole solutions), and a policy. Out: a verdict; no text raises an
exception. Comparisons that need a proof go to a pool of worker processes.
"""

from __future__ import annotations

from verifiers.allowance import CALLER_UNITS, Spent, allowance
from verifiers.limits import MAX_TEXT, TooLarge
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.quantities.exact import exact_verdict, quantity
from verifiers.text import decoded
from verifiers.verdict import Verdict

Text = str | bytes | None


def verify(reference: Text, answer: Text, *, policy: Policy = DEFAULT_POLICY) -> Verdict:
    """Compare ``answer`` with ``reference``.

    Both may be bare answers (``\\frac{1}{2}``, ``$1,200``) or whole solution texts. In a solution text, the conclusion
    counts. Returns a :class:`Verdict`; only ``equal`` is truthy. None, undecodable bytes and unreadable text give
    ``unparsed``. Text beyond the fixed bounds gives ``too_large``. A proof that takes too long gives ``timeout``. Any
    thread may call this function. A proof runs in a worker process, which starts when it is first needed. Raises
    ``TypeError`` for an argument of another type.
    """
    verdict = cheap_verdict(reference, answer, policy)
    if verdict is not None:
        return verdict
    from verifiers.prove.pool import default_pool

    return default_pool()._proved(reference, answer, policy)


def _cheap(left: str, right: str, policy: Policy) -> Verdict | None:
    from verifiers.compare.layers import NeedsFallback, NeedsProof, decide_texts
    from verifiers.prove.fallback import available

    try:
        with allowance(CALLER_UNITS):
            return decide_texts(left, right, policy, None)
    except (NeedsProof, Spent):
        return None
    except NeedsFallback as needs:
        return None if available() else needs.verdict


def cheap_verdict(reference: Text, answer: Text, policy: Policy = DEFAULT_POLICY) -> Verdict | None:
    """Return the verdict of the layers that run in the calling process.

    Returns None where only a proof or the fallback can decide.
    """
    if type(reference) is str and type(answer) is str and len(reference) < 32 and len(answer) < 32:
        try:
            a, b = quantity(reference), quantity(answer)
        except TooLarge:
            a = b = None
        if a is not None and b is not None and getattr(policy, "comma", "decimal") != "decimal":
            return exact_verdict(a, b, policy)
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
        return _cheap(left, right, policy)
    except TooLarge as error:
        return Verdict("too_large", reason=str(error))
    except (RecursionError, MemoryError, OverflowError, ValueError) as error:  # ValueError: a number of 4,301 digits
        return Verdict("too_large", reason=f"{type(error).__name__} while reading")
    except OSError as error:  # a library that loads on first use could not be loaded
        return Verdict("timeout", reason=f"no verdict: {type(error).__name__}: {str(error)[:120]}")

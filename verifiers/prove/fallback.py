"""Asks math-verify about answers that our grammar does not cover, if it is installed (extra ``verifiers-fallback``).

In: two texts and the verdict so far. Out: that verdict, or ``equal`` or ``unequal`` from the fallback. This module runs
in a worker only. It switches off the time limit of math-verify, an alarm signal: the worker's deadline applies.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from functools import lru_cache

from verifiers.limits import TooLarge, Unparsed
from verifiers.parse.parser import parse
from verifiers.read import conclusion
from verifiers.verdict import Verdict

MAX_ASKED = 1_000
"""Characters of a text that math-verify is asked about."""
_COMMAND = re.compile(r"\\[A-Za-z]+")
_FOREIGN = re.compile(r"[A-Za-z]{4}|__|['\"`;@#?]|\bor\b|\band\b|\n")
"""Prose and code."""
_INTEGRAL = re.compile(r"\\int(?![A-Za-z])(?:\s*[_^]\s*(?:\{[^{}]{1,40}\}|\w)){0,2}(?=.*d\s*[a-z](?![a-z]))")
"""What math-verify reads faithfully and our grammar has no word for."""


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


def warm_up() -> None:
    """Loads what the first question to math-verify would load; this takes longer than many deadlines."""
    if available():
        judge(r"\int_0^1 x\,dx", r"\int_0^2 x\,dx", Verdict("unparsed"))


def judge(reference: str, answer: str, standing: Verdict) -> Verdict:
    """Asks math-verify; the verdict stays as it was if math-verify cannot read the answers either."""
    if not available() or not (_readable(reference) and _readable(answer)):
        return standing
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    gold = math_verify.parse(_marked(reference), parsing_timeout=None)
    given = math_verify.parse(_marked(answer), parsing_timeout=None)
    if not gold or not given:
        return standing
    # math-verify treats the two sides differently and our verdicts do not, so it must agree in both orders.
    equal = all(math_verify.verify(*sides, timeout_seconds=None) for sides in ((gold, given), (given, gold)))
    return Verdict(
        "equal" if equal else "unequal",
        "fallback",
        str(gold[-1])[:200],
        str(given[-1])[:200],
        f"math-verify; {standing.reason}",
    )


def _readable(text: str) -> bool:
    """Whether a text is one formula that is outside our grammar only because it contains an integral.

    math-verify grades the formula at the start of a text (it reads ``5)(`` and ``5+`` as 5). It drops commands that it
    does not know (``\\Box 5``, ``7 \\bmod 5``). It takes limits from one side. So the whole text must parse after each
    integral is replaced by a letter.
    """
    bare = conclusion(text)
    if len(bare) > MAX_ASKED or _FOREIGN.search(_COMMAND.sub(" ", bare)):
        return False
    try:
        return bool(parse(_INTEGRAL.sub(r"\\psi ", bare)))
    except (Unparsed, TooLarge):
        return False


def _marked(text: str) -> str:
    return text if "$" in text or "\\boxed" in text or "\\(" in text else f"${text}$"

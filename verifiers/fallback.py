"""math-verify for what our grammar does not cover, if it is installed (extra ``verifiers-fallback``); in a worker only.

In: two texts and the verdict that stands so far. Out: that verdict, or ``equal`` or ``unequal`` by the fallback. Its
own time limit, an alarm signal, is switched off: the worker's deadline holds. It does not know our tree.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache

from verifiers.extraction import conclusion
from verifiers.verdict import Verdict


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


def judge(reference: str, answer: str, standing: Verdict) -> Verdict:
    """Ask math-verify; what it cannot read either stays as it was."""
    if not available() or not (_mathematical(reference) and _mathematical(answer)):
        return standing
    from math_verify import parse, verify

    gold = parse(_marked(reference), parsing_timeout=None)
    given = parse(_marked(answer), parsing_timeout=None)
    if not gold or not given:
        return standing
    equal = bool(verify(gold, given, timeout_seconds=None))
    return Verdict(
        "equal" if equal else "unequal",
        "fallback",
        str(gold[-1])[:200],
        str(given[-1])[:200],
        f"math-verify; {standing.reason}",
    )


def _mathematical(text: str) -> bool:
    """Whether a text is one formula: math-verify would grade a stray number in anything else."""
    bare = re.sub(r"\\\\?[A-Za-z]+", " ", conclusion(text))
    return len(bare) < 1000 and not re.search(r"[A-Za-z]{4}|__|['\"`;@#?]|\bor\b|\band\b|\n", bare)


def _marked(text: str) -> str:
    return text if "$" in text or "\\boxed" in text or "\\(" in text else f"${text}$"

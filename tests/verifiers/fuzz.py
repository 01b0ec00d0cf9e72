# ruff: noqa: E501
"""An atheris harness: any bytes as reference and answer, through extraction and the layers of the calling process.

    python -m tests.verifiers.fuzz [CORPUS] -max_total_time=600 -rss_limit_mb=2048

It fails on an exception, on a verdict outside the five outcomes, on asymmetry, on an answer that does not equal itself,
and, by atheris' own ``-timeout``, on a hang. atheris is no dependency of the project: install it where the fuzzing runs.
"""

from __future__ import annotations

import contextlib
import sys
import time

import atheris

with atheris.instrument_imports(include=["verifiers"]):
    from verifiers import STYLES, Policy, extract_answer
    from verifiers.api import cheap_verdict
    from verifiers.compare.layers import NeedsFallback, decide_texts
    from verifiers.limits import TooLarge
    from verifiers.verdict import OUTCOMES

PIECES = [
    "\\frac{", "\\sqrt{", "\\boxed{", "}", "{", "(", ")", "[", "]", "\\left", "\\right", "^", "_", "\\pi", "\\infty", "\\cup", "\\in", "x", "y", "e",
    "i", "1", "2", "10", "0.5", "1,000", "/", "+", "-", "*", "\\cdot ", "=", "<", "\\le ", ",", " and ", " or ", "\\pm ", "\\text{cm}", "%", "!", "|",
    "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\sin ", "\\log_", "\\sum_{k=1}^", "$", "the answer is ", "#### ", "½", "√", "²", "f(", "\\{",
    "\\}", "\\overline{", "^\\circ", "...", ":", "\\mathbb{R}", "\\setminus ", "\\approx ", "_8", "12:30", "e3", " ", "\n", "\x00", "\u202e", "9^{9^{",
]  # fmt: skip
SLOW_SECONDS = 1.0
RULE = Policy(intervals="either")


def text_from(provider: atheris.FuzzedDataProvider) -> str:
    """Raw text, or a string of pieces that look like mathematics."""
    if provider.ConsumeBool():
        return str(provider.ConsumeUnicode(200))
    return "".join(
        PIECES[provider.ConsumeIntInRange(0, len(PIECES) - 1)] for _ in range(provider.ConsumeIntInRange(0, 24))
    )


def one_input(data: bytes) -> None:
    """Judge one input."""
    provider = atheris.FuzzedDataProvider(data)
    a, b = text_from(provider), text_from(provider)
    start = time.process_time()
    for style in STYLES:
        extract_answer(a, style)
    forward, backward = cheap_verdict(a, b, RULE), cheap_verdict(b, a, RULE)
    same = cheap_verdict(a, a, RULE)
    took = time.process_time() - start
    for verdict in (forward, backward, same):
        assert verdict is None or verdict.outcome in OUTCOMES
    if forward is not None and backward is not None:
        assert bool(forward) == bool(backward), (a, b, forward, backward)
    assert same is None or same.outcome != "unequal", (a, same)
    assert took < SLOW_SECONDS, (a, b, took)
    if forward is None:
        with contextlib.suppress(TooLarge, NeedsFallback):
            decide_texts(a, b, RULE, lambda x, y: None)


def main() -> None:
    """Run atheris with the arguments of the command line."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

# ruff: noqa: E501
"""Answers that try to hang, crash or take over a grader, one after the other and with noise around them.

    python -m benchmarks.attack_verdicts [--json FILE] [--seconds 120] [--seed 0]

Figures: `verdicts` (asked), `max_verdict_s` (the slowest, by the clock on the wall), `verdict_deadline_s` (of one),
`verdicts_over` (how many took more than one and a half deadlines), `hostile_right` (called equal), `hostile_executed`
(1: code ran), `max_reading_s` (the slowest text of 200,000 characters that was read).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from mcts_dpo.common.files import write_json
from tests.verifiers.hostile import CANARY, hostile_answers
from verifiers import STYLES, VerifierPool, extract_answer

DEADLINE = 0.5
LENGTH = 200_000
FRAGMENTS = (
    " ", "\n", "\\boxed{", "}", "####", "The answer is ", "<think>", "</think>", "$", "\\frac", "(", ")", ",", "1", "a", "9" * 30,
    "\\left", "**", "because ", "no, wait ", "|", "^", "{", "&", "\\\\", "答案是", "\t", ".", "is ", "\\text{", "<", ">", "=", "#",
)  # fmt: skip


def questions(rng: random.Random) -> Iterator[tuple[str, str]]:
    """(reference, answer): each hostile pair as it is, then variations without end."""
    known = hostile_answers()
    rng.shuffle(known)
    yield from ((reference, answer) for _, reference, answer in known)
    while True:
        _, reference, answer = rng.choice(known)
        _, _, other = rng.choice(known)
        how = rng.choice(
            ["{} + {}", "({})^{{{}}}", "\\frac{{{}}}{{{}}}", "\\sqrt{{{}}} {}", "{}, {}", "|{}| \\cdot {}"]
        )
        yield reference, how.format(answer, other)


def texts(rng: random.Random) -> Iterator[str]:
    """Long texts of one or two kinds of pieces."""
    for fragment in FRAGMENTS:
        yield (fragment * (LENGTH // len(fragment)))[:LENGTH]
    while True:
        pieces = rng.sample(FRAGMENTS, rng.randrange(2, 6))
        yield "".join(rng.choice(pieces) for _ in range(LENGTH // max(map(len, pieces))))


def attack(seconds: float = 120.0, seed: int = 0) -> dict[str, float]:
    """Verdicts for three quarters of the time, texts for the rest; see the module."""
    rng, begun, canary = random.Random(seed), time.monotonic(), Path(CANARY)
    canary.unlink(missing_ok=True)
    count, slowest, over, right = 0, 0.0, 0, 0
    with VerifierPool(workers=1, deadline=DEADLINE) as pool:
        pool.warm_up()
        for reference, answer in questions(rng):
            if time.monotonic() - begun > 0.75 * seconds:
                break
            start = time.perf_counter()
            found = pool.verify(reference, answer)
            took = time.perf_counter() - start
            count, slowest = count + 1, max(slowest, took)
            over += took > 1.5 * DEADLINE
            right += bool(found) and reference == "5"
    reading = 0.0
    for text in texts(rng):
        if time.monotonic() - begun > seconds:
            break
        for style in STYLES:
            start = time.thread_time()
            extract_answer(text, style)
            reading = max(reading, time.thread_time() - start)
    executed = canary.exists()
    canary.unlink(missing_ok=True)
    return {
        "verdicts": float(count),
        "max_verdict_s": slowest,
        "verdict_deadline_s": DEADLINE,
        "verdicts_over": float(over),
        "hostile_right": float(right),
        "hostile_executed": float(executed),
        "max_reading_s": reading,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = attack(options.seconds, options.seed)
    print(json.dumps(figures, indent=2))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()

"""The verifiers beside their peers: speed, accuracy, hostile answers, and the table of behaviours.

    python -m benchmarks.verifiers --data ../shared/data [--json FILE] [--readme] [--quick]

In: labelled pairs and benchmark answers from a data folder. Out: one table on standard output, peers side by side in
the same run; with ``--json`` the figures; with ``--readme`` the table of behaviours in ``verifiers/README.md``. Peers
that are not installed are left out of the table. It is never run by tests.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import random
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.verifiers.hostile import CANARY, hostile_answers
from verifiers import Verdict, VerifierPool, verify

Grader = Callable[[str, str], str]
Row = tuple[str, ...]
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,} +[A-Za-z]{2,}")
"""Two words: a text, in which math-verify looks for the answer itself."""
TURNS = 10
"""Turns in which graders are timed one after the other."""
BEHAVIOURS: list[tuple[str, str, str, bool]] = [
    ("sign of a term", "1-\\frac{1}{e}", "1+\\frac{1}{e}", False),
    ("tiny decimals", "0.0000001", "0.0000002", False),
    ("tuple or thousand", "(1,000)", "(1,0)", False),
    ("base of a numeral", "101_2", "101_3", False),
    ("wrong unit", "10 cm", "10 m", False),
    ("dates", "2024-01-02", "2024-01-03", False),
    ("unicode fraction", "1/2", "½", True),
    ("unicode minus", "-5", "−5", True),
    ("unicode root", "\\sqrt{2}", "√2", True),
    ("mixed number", "3.5", "3 1/2", True),
    ("scientific notation", "0.0015", "1.5e-3", True),
    ("repeating decimal", "1/3", "0.\\overline{3}", True),
    ("words", "\\text{Evelyn}", "Evelyn", True),
    ("unit left out", "15\\text{ cm}^2", "15", True),
    ("other unit, same quantity", "1 hour", "60 minutes", True),
    ("hedging", "4", "4 or 5", False),
    ("several boxes", "2", "\\boxed{2} \\text{ or } \\boxed{3}", False),
    ("shotgun list", "2", "1, 2, 3, 4, 5", False),
    ("thousands separators", "1234567", "1{,}234{,}567", True),
    ("interval ends", "[0,1)", "[0,1]", False),
    ("inequality as interval", "x > 5", "(5,\\infty)", True),
    ("order of a list", "1, 2, 3", "3, 1, 2", True),
    ("order of a tuple", "(1,2)", "(2,1)", False),
    ("assignment", "x=5", "5", True),
    ("other variable", "x=5", "y=5", False),
    ("coupled signs", "3\\pm\\sqrt{2}", "3-\\sqrt{2}, 3+\\sqrt{2}", True),
    ("half of the signs", "\\pm 3", "3", False),
    ("same equation", "x^2/4+y^2/3=1", "x^2/16+y^2/12=1/4", True),
    ("nested radical", "\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt{2}", True),
    ("branch of a root", "\\sqrt{x^2}", "x", False),
    ("near miss by 1e-301", "1", "2^{\\frac{1}{2^{1000}}}", False),
    ("near integer", "262537412640768744", "e^{\\pi\\sqrt{163}}", False),
    ("trigonometric identity", "\\sin(2x)", "2\\sin x\\cos x", True),
    ("degrees and radians", "90^\\circ", "\\frac{\\pi}{2}", True),
    ("percent", "10\\%", "0.1", True),
    ("rounded too far", "\\frac{100}{3}", "33.3", False),
    ("float print", "\\sqrt{17}", "4.123105625617661", True),
    ("tower of powers", "9^{9^{9^{9}}}", "1", False),
    ("division by zero", "1/0", "1", False),
    ("code", "5", "__import__('os').system('true') or 5", False),
]


def ours(reference: str, answer: str) -> str:
    return verify(reference, answer).outcome


def math_verify_grader() -> Grader | None:
    """math-verify as its users call it on bare answers; its alarm signal is on."""
    if importlib.util.find_spec("math_verify") is None:
        return None
    from math_verify import parse
    from math_verify import verify as compare

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def grade(reference: str, answer: str) -> str:
        def wrapped(text: str) -> str:
            marked = "$" in text or "\\boxed" in text or "\\(" in text
            return text if marked or _PROSE.search(text) else f"${text}$"

        try:
            return "equal" if compare(parse(wrapped(reference)), parse(wrapped(answer))) else "unequal"
        except Exception as reason:
            return type(reason).__name__

    return grade


def minerva_grader() -> Grader | None:
    """The grader of lm-evaluation-harness' Minerva tasks (extra ``lm-eval[math]``, which pins antlr 4.11)."""
    try:
        from lm_eval.tasks.minerva_math.utils import is_equiv, normalize_final_answer
    except (ImportError, AssertionError):
        return None

    def grade(reference: str, answer: str) -> str:
        try:
            sides = (normalize_final_answer(reference), normalize_final_answer(answer))
            return "equal" if is_equiv(*sides) else "unequal"
        except Exception as reason:
            return type(reason).__name__

    return grade


def installed_graders() -> dict[str, Grader]:
    """Ours and every peer that is installed, by name and version."""
    graders: dict[str, Grader] = {"verifiers": ours}
    for package, label, make in (
        ("math-verify", "math-verify", math_verify_grader),
        ("lm_eval", "lm-eval minerva", minerva_grader),
    ):
        grade = make()
        if grade is not None:
            graders[f"{label} {importlib.metadata.version(package)}"] = grade
    return graders


def numeric_pairs(count: int, seed: int = 0) -> list[tuple[str, str, bool]]:
    """GSM8K-style: an integer reference, and an answer as models write it, right in half of the cases."""
    rng = random.Random(seed)
    styles = ["{}", "{:,}", "${:,}", "{}.00", "{} ", "{:,}.", "\\${:,}", "{}.0"]
    pairs = []
    for _ in range(count):
        value = rng.randint(0, 10 ** rng.randint(1, 6))
        right = rng.random() < 0.5
        shown = value if right else value + rng.choice([-1, 1, 10, 100])
        reference = rng.choice(["{}", "{:,}"]).format(value)
        pairs.append((reference, rng.choice(styles).format(shown), right))
    return pairs


def math_pairs(answers: list[str], seed: int = 0) -> list[tuple[str, str, bool]]:
    """MATH-style mix: each answer against itself rewritten, and against a changed or another answer."""
    rng = random.Random(seed)
    pairs = []
    for answer in answers:
        pairs.append((answer, rewritten(answer, rng), True))
        wrong = changed(answer, rng)
        while wrong is None or wrong == answer:
            wrong = answers[rng.randrange(len(answers))]
        pairs.append((answer, wrong, False))
    rng.shuffle(pairs)
    return pairs


def rewritten(answer: str, rng: random.Random) -> str:
    """A harmless rewriting of an answer."""
    options = [
        f"${answer}$",
        f"\\boxed{{{answer}}}",
        answer.replace("\\frac{", "\\dfrac{"),
        f" {answer} ",
        f"{answer}.",
    ]
    slashed = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)", answer)
    spaced = re.sub(r"(?<=[\w)}])([+])(?=[\w(\\])", r" \1 ", answer)
    sized = re.sub(r"\\(?:left|right)", "", answer)
    options += [text for text in (slashed, spaced, sized) if text != answer] * 3
    return rng.choice(options)


def changed(answer: str, rng: random.Random) -> str | None:
    """The answer with one digit changed; None if it has none."""
    places = [match.start() for match in re.finditer(r"\d", answer)]
    if not places:
        return None
    place = rng.choice(places)
    digit = rng.choice([d for d in "123456789" if d != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]


def rates(
    graders: dict[str, Grader], pairs: list[tuple[str, str, bool]], peers_take: int
) -> dict[str, tuple[float, int, int]]:
    """(pairs per second, errors, pairs) of each grader over the pairs, in turns so that all meet the same machine.

    peers_take: the slower peers get only that many of the pairs, from the front of each turn's share.
    """
    spent = dict.fromkeys(graders, 0.0)
    errors, counts = dict.fromkeys(graders, 0), dict.fromkeys(graders, 0)
    size = -(-len(pairs) // TURNS)
    for start in range(0, len(pairs), size):
        for name, grade in graders.items():
            turn = pairs[start : start + size]
            turn = turn if name == "verifiers" else turn[: -(-peers_take // TURNS)]
            began = time.perf_counter()
            errors[name] += sum((grade(reference, answer) == "equal") != right for reference, answer, right in turn)
            spent[name] += time.perf_counter() - began
            counts[name] += len(turn)
    return {name: (counts[name] / spent[name], errors[name], counts[name]) for name in graders}


def add_reported(
    figures: dict[str, float | int | None], rows: list[Row], graders: dict[str, Grader], path: Path
) -> None:
    """What people reported against checkers: right, false equals and pairs, for us and for math-verify."""
    found = {name: dev_accuracy(grade, path) for name, grade in graders.items()}
    rows.append(("reported pairs right", *(f"{right:.1%}" for right, _, _ in found.values())))
    rows.append(("  false equal", *(f"{false_equal}" for _, false_equal, _ in found.values())))
    figures["reported_pairs"] = len(found["verifiers"][2])
    for name, (right, false_equal, _) in found.items():
        prefix = {"verifiers": "", "math-verify": "math_verify_"}.get(name.split(" ")[0])
        if prefix is not None:
            figures[f"{prefix}reported_right"] = right
            figures[f"{prefix}reported_false_equals"] = false_equal


def dev_accuracy(grade: Grader, path: Path) -> tuple[float, int, list[float]]:
    """(share right, false equals, microseconds per pair)."""
    right = false_equal = 0
    times = []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        start = time.perf_counter()
        equal = grade(row["reference"], row["answer"]) == "equal"
        times.append((time.perf_counter() - start) * 1e6)
        right += equal == row["equal"]
        false_equal += equal and not row["equal"]
    return right / len(rows), false_equal, times


def hostile_run(deadline: float = 0.5, memory: int = 512) -> dict[str, float]:
    """Every hostile pair through a pool, with a beat in another thread and a sane pair after each."""
    gaps: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not stop.wait(0.01):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    worst, wrong, wrong_after = 0.0, 0, 0
    marker = Path(CANARY)
    marker.unlink(missing_ok=True)
    peak = 0.0
    with VerifierPool(workers=1, deadline=deadline, memory=memory) as pool:
        pool.warm_up()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        answers = hostile_answers()
        for _, reference, answer in answers:
            start = time.perf_counter()
            verdict: Verdict = pool.verify(reference, answer)
            took = time.perf_counter() - start
            wrong += bool(verdict)
            worst = max(worst, took)
            start = time.perf_counter()
            after = pool.verify("\\sin(2x)", "2\\sin x \\cos x") if took > deadline / 2 else pool.verify("1/2", "0.5")
            worst = max(worst, time.perf_counter() - start)
            wrong_after += not after
        peak = pool.peak_memory()
        stop.set()
        thread.join()
    executed = float(marker.exists())
    marker.unlink(missing_ok=True)
    return {
        "count": float(len(answers)), "max_s": worst, "wrong": float(wrong), "wrong_after": float(wrong_after),
        "executed": executed, "deadline_s": deadline, "beat_gap_s": max(gaps, default=0.0), "peak_memory_mib": peak,
    }  # fmt: skip


def behaviours_table(graders: dict[str, Grader]) -> str:
    """Behaviours by graders as Markdown."""
    lines = [
        "| behaviour | reference | answer | should be | " + " | ".join(graders) + " |",
        "|" + "---|" * (4 + len(graders)),
    ]
    for name, reference, answer, equal in BEHAVIOURS:
        cells = []
        for grade in graders.values():
            start = time.perf_counter()
            outcome = grade(reference, answer)
            slow = f" ({time.perf_counter() - start:.1f} s)" if time.perf_counter() - start > 1.5 else ""
            mark = "✓" if (outcome == "equal") == equal else "✗"
            cells.append(f"{mark} {outcome}{slow}")
        shown = [f"`{text}`".replace("|", "\\|") for text in (reference, answer)]
        expected = "equal" if equal else "not equal"
        lines.append("| " + " | ".join([name, *shown, expected, *cells]) + " |")
    return "\n".join(lines)


def write_readme(table: str) -> None:
    path = Path(__file__).resolve().parent.parent / "verifiers" / "README.md"
    text = path.read_text(encoding="utf-8")
    start, end = "<!-- behaviours: generated by benchmarks/verifiers.py --readme -->", "<!-- end of behaviours -->"
    before, rest = text.split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifiers", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="math500, answer_pairs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--readme", action="store_true", help="rewrite the table of behaviours in verifiers/README.md")
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    given = parser.parse_args()
    for name in ("math500/test.jsonl", "answer_pairs/dev.jsonl"):
        if not (given.data / name).is_file():
            parser.error(f"--data {given.data}: holds no {name}")
    graders = installed_graders()
    peer = next((name for name in graders if name.startswith("math-verify")), None)
    figures: dict[str, float | int | None] = {}
    rows: list[Row] = []
    # What is loaded on first use, and the worker processes, are no part of any rate.
    for grade in graders.values():
        grade("\\sin(2x)", "2\\sin x\\cos x")

    numeric = numeric_pairs(20_000 if given.quick else 100_000)
    speeds = rates(graders, numeric, 100 if given.quick else 400)
    rows.append(("GSM8K-style pairs/s", *(f"{speeds[name][0]:,.0f}" for name in graders)))
    rows.append(("  errors", *(f"{speeds[name][1]} of {speeds[name][2]:,}" for name in graders)))
    figures["numeric_pairs_per_s"] = speeds["verifiers"][0]
    figures["numeric_speedup_vs_math_verify"] = speeds["verifiers"][0] / speeds[peer][0] if peer else None

    lines = (given.data / "math500" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    mix = math_pairs(answers[:100] if given.quick else answers)
    speeds = rates(graders, mix, len(mix))
    rows.append(("MATH-style pairs/s", *(f"{speeds[name][0]:,.0f}" for name in graders)))
    rows.append(("  errors", *(f"{speeds[name][1]} of {speeds[name][2]:,}" for name in graders)))
    figures["math_speedup_vs_math_verify"] = speeds["verifiers"][0] / speeds[peer][0] if peer else None
    figures["math_errors"] = speeds["verifiers"][1]
    figures["math_errors_math_verify"] = speeds[peer][1] if peer else None

    dev = {name: dev_accuracy(grade, given.data / "answer_pairs" / "dev.jsonl") for name, grade in graders.items()}
    rows.append(("dev pairs right", *(f"{dev[name][0]:.1%}" for name in graders)))
    rows.append(("  false equal", *(f"{dev[name][1]}" for name in graders)))
    quantiles = {name: statistics.quantiles(dev[name][2], n=100) for name in graders}
    middle = [f"{quantiles[name][49]:,.0f} / {quantiles[name][98]:,.0f}" for name in graders]
    rows.append(("  median / p99 µs", *middle))
    figures["dev_accuracy"], figures["dev_false_equal"] = dev["verifiers"][0], dev["verifiers"][1]

    reported = given.data / "answer_pairs" / "reported.jsonl"
    if reported.is_file():
        add_reported(figures, rows, graders, reported)

    hostile = hostile_run()
    blank = ("",) * (len(graders) - 1)
    rows.append((f"hostile answers ({hostile['count']:.0f}), slowest s", f"{hostile['max_s']:.2f}", *blank))
    counts = f"{hostile['wrong']:.0f} / {hostile['wrong_after']:.0f}"
    rows.append(("  called equal / wrong next verdict", counts, *blank))
    rows.append(("  code executed", f"{hostile['executed']:.0f}", *blank))
    rows.append(("  longest stall of another thread s", f"{hostile['beat_gap_s']:.2f}", *blank))
    rows.append(("  largest worker MiB", f"{hostile['peak_memory_mib']:.0f}", *blank))
    figures["hostile_max_deadlines"] = hostile["max_s"] / hostile["deadline_s"]
    figures["hostile_max_s"], figures["hostile_executed"] = hostile["max_s"], int(hostile["executed"])
    figures["hostile_count"], figures["hostile_wrong"] = int(hostile["count"]), int(hostile["wrong"])
    figures["hostile_stall_s"], figures["hostile_peak_memory_mib"] = hostile["beat_gap_s"], hostile["peak_memory_mib"]

    width = max(len(row[0]) for row in rows)
    print(f"{'':{width}}  " + "".join(f"{name:>26}" for name in graders))
    for row in rows:
        print(f"{row[0]:{width}}  " + "".join(f"{cell:>26}" for cell in row[1:]))
    if given.readme:
        write_readme(behaviours_table(graders))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Several policies on the same problems, side by side: one row per evaluation, paired against the first.

    python -m benchmarks.compare base=runs/a/baseline/evaluation.parquet rft=runs/b/round-000/evaluation.parquet …

Prints a Markdown table: greedy accuracy (Wilson), the paired difference to the first (bootstrap over problems), how
many problems were gained and lost, the exact McNemar p, and what keeps form and content apart: the share of solutions
that state their answer by an explicit mark ("The answer is", \\boxed, ####), the accuracy among those, and the share
cut by the token limit. All intervals are at 95 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.statistics import proportion
from mcts_dpo.evaluation import Evaluation, compare
from verifiers import extract_answer

COLUMNS = (
    "policy",
    "accuracy",
    "difference to {first}",
    "gained / lost",
    "McNemar p",
    "states its answer",
    "right if stated",
    "cut",
)


def row(name: str, evaluation: Evaluation, first: Evaluation | None) -> str:
    outcomes = evaluation.outcomes
    marked = [o for o in outcomes if extract_answer(o.text, "math") is not None]
    cells = [name, str(proportion(sum(evaluation.correct), len(outcomes)))]
    if first is None:
        cells += ["", "", ""]
    else:
        paired = compare(first, evaluation)
        d = paired.difference
        cells += [f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", f"{paired.gained} / {paired.lost}"]
        cells.append(f"{paired.p_value:.2g}")
    cells.append(f"{len(marked) / len(outcomes):.3f}")
    cells.append(f"{sum(o.correct for o in marked) / len(marked):.3f}" if marked else "n/a")
    cells.append(f"{sum(o.cut for o in outcomes) / len(outcomes):.3f}")
    return "| " + " | ".join(cells) + " |"


def table(named: list[tuple[str, Path]]) -> str:
    """The Markdown table. The first evaluation is what the others are compared with."""
    evaluations = [(name, Evaluation.load(path)) for name, path in named]
    first_name, first = evaluations[0]
    heading = "| " + " | ".join(COLUMNS).format(first=first_name) + " |"
    lines = [heading, "|---" * len(COLUMNS) + "|", row(first_name, first, None)]
    lines += [row(name, evaluation, first) for name, evaluation in evaluations[1:]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="NAME=FILE")
    named = [tuple(item.partition("=")[::2]) for item in parser.parse_args().evaluations]
    try:
        print(table([(name, Path(path)) for name, path in named]))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

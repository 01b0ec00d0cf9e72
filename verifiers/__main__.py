"""``python -m verifiers REFERENCE ANSWER``: print the verdict and the reason; exit 0 if equal, 1 if not, 2 on failure.

In: two texts on the command line. Out: lines on standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from verifiers.registry import get_verifier, verifier_names
from verifiers.visible import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m verifiers", description="Is this answer right?")
    parser.add_argument("reference", help="the right answer")
    parser.add_argument("answer", help="the answer to check")
    parser.add_argument("--verifier", default="math", choices=verifier_names(), help="which comparison (default: math)")
    given = parser.parse_args(arguments)
    verdict = get_verifier(given.verifier)(given.reference, given.answer)
    layer = f" ({verdict.layer})" if verdict.layer else ""
    print(visible(f"{verdict.outcome}{layer}: {verdict.reason}"))
    for name, form in (("reference", verdict.reference), ("answer", verdict.answer)):
        print(visible(f"  {name}: {form if form is not None else '-'}"))
    return 0 if verdict else 1 if verdict.outcome == "unequal" else 2


if __name__ == "__main__":
    sys.exit(main())

"""The pictures of the documentation, taken from a run's report in headless Chromium.

    python -m benchmarks.screenshots RUN [--out docs/images]

RUN: a finished run directory with a comparison of strategies in it (`mcts-dpo eval --strategy … -o RUN/equal`); its
report.html is written anew. Writes tree-browser.png (a tree with two or more pairs, as the page opens it) and
strategies.png (accuracy against tokens). docs/images holds those of `make demo` and the command of
benchmarks/results/strategies.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mcts_dpo.common.errors import InputError
from mcts_dpo.report import load_run, write_html
from tests.browser import opened


def take(run: Path, out: Path) -> list[Path]:
    """Take both pictures. Raises InputError for a run without trees that show something, or without a comparison."""
    file = write_html(load_run(run)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    pictures = [out / "tree-browser.png", out / "strategies.png"]
    with opened(file) as (page, complaints):
        page.wait_for_selector("#tree .node")
        if not page.locator("#strategy-charts figure").count():
            raise InputError(
                f"{run}: no comparison of strategies (accepted: one made with eval --strategy … -o {run}/equal)"
            )
        # A tree that shows something and can be read at this size.
        place = page.evaluate(
            "matches().findIndex((e) => e.pairs >= 2 && e.right && e.wrong >= 4 && e.nodes > 12 && e.nodes < 26)"
        )
        if place < 0:
            raise InputError(f"{run}: no tree with two pairs, right and wrong ends, and 13 to 25 steps")
        page.evaluate(f"open(matches()[{place}])")
        page.wait_for_selector("#tree .edge.chosen")
        page.evaluate("document.querySelector('#list [aria-current=true]').scrollIntoView({ block: 'center' })")
        page.locator(".browser").screenshot(path=pictures[0])
        page.add_style_tag(content="header { display: none }")  # it stays on top of what is scrolled under it
        page.locator("#strategy-charts figure").first.screenshot(path=pictures[1])
        if complaints:
            raise RuntimeError(f"the page complains: {complaints[0]}")
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    try:
        print(*take(arguments.run, arguments.out), sep="\n")
    except InputError as error:
        parser.exit(2, f"benchmarks.screenshots: {error}\n")


if __name__ == "__main__":
    main()

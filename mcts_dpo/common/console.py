"""Prints lines, tables and trees for people, and one live line per stage if the output is a terminal.

Everything that a command prints goes through this module. Text from models, data and files is printed literally:
nothing in it is markup, and characters that act on the terminal are printed as escapes (see `verifiers.visible`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.text import Text

from mcts_dpo.common.files import standard_json
from mcts_dpo.common.interrupts import check, guarded
from mcts_dpo.common.progress import Progress, silent
from verifiers.visible import visible, visible_json


class LiteralConsole(Console):
    """A console that prints text literally: no markup, no emoji codes, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as plain text, also in a table or a rule; overrides rich's method."""
        return super().render_str(visible(text), **(options | {"markup": False, "emoji": False}))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Escapes control characters in the text of other renderables. Rich's own control codes pass."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def literal(self, text: str, style: str = "") -> None:
        """Print a text in its own lines, neither wrapped nor cut to the width."""
        self.print(Text(visible(text), style), soft_wrap=True)

    def labelled(self, label: str, text: str, style: str = "bold") -> None:
        """Print a label in a style, then a text, in one line."""
        self.print(Text.assemble((label, style), visible(text)), soft_wrap=True)


out_console = LiteralConsole()
err_console = LiteralConsole(stderr=True)


def say(text: str, *, err: bool = False) -> None:
    """Print lines of plain text to standard output, or to standard error."""
    typer.echo(visible(text), err=err)


def say_json(data: Any) -> None:
    """Print a value as JSON with sorted keys; numbers that are not finite become null."""
    typer.echo(visible_json(standard_json(data, indent=2, sort_keys=True)))


def say_json_list(items: Iterable[Any]) -> None:
    """Print a list as `say_json` does, with one item in memory at a time."""
    before = "[\n"
    for item in items:
        text = visible_json(standard_json(item, indent=2, sort_keys=True))
        typer.echo(before + "  " + text.replace("\n", "\n  "), nl=False)
        before = ",\n"
    typer.echo("\n]" if before == ",\n" else "[]")


def _unseen(stage: str, done: int, total: int, **figures: float) -> None:
    """Shows nothing, but ends the command after an interruption that a library has dropped."""
    check()


@contextmanager
def live_progress(console: Console) -> Iterator[Progress]:
    """A Progress that draws bars with elapsed time, ETA and running figures on `console` while the block runs.

    For a figure named `tokens`, the number so far, it shows the rate since the stage began. A stage of unknown length
    (total 0) gets a bar that moves back and forth until another stage reports.
    """
    if not console.is_terminal:
        yield _unseen if guarded() else silent
        return
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    # The output of a command must not go through the console of the bars, even while they are drawn.
    with Bars(*columns, console=console, redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}
        unknown: list[TaskID] = []

        def show(stage: str, done: int, total: int, **figures: float) -> None:
            check()
            stage = visible(stage)
            while unknown:
                bars.update(unknown.pop(), completed=1, total=1)
            if not total:
                unknown.append(bars.add_task(stage, total=None, figures=""))
                return
            # A stage that starts again, like the next evaluation, gets a new line.
            if stage not in tasks or done < bars.tasks[tasks[stage]].completed:
                tasks[stage] = bars.add_task(stage, total=total, figures="")
            spent = bars.tasks[tasks[stage]].elapsed
            if "tokens" in figures and spent:
                figures = {"tok/s": figures.pop("tokens") / spent, **figures}
            text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
            bars.update(tasks[stage], completed=done, total=total, figures=text)

        yield show
        while unknown:
            bars.update(unknown.pop(), completed=1, total=1)

"""What a person sees while a stage works: one live line per stage; nothing when the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mcts_dpo.progress import Progress, silent


@contextmanager
def live_progress(console: Console) -> Iterator[Progress]:
    """A Progress that draws bars with elapsed time, ETA and running figures on `console` while the block runs.

    Of a figure `tokens`, the number so far, it shows the pace since the stage began. A stage whose length is not known
    (total 0) gets a bar that moves back and forth until another stage reports.
    """
    if not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    # What a command prints is for whoever reads it, even while bars are drawn: it does not go through their console.
    with Bars(*columns, console=console, redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}
        unknown: list[TaskID] = []

        def show(stage: str, done: int, total: int, **figures: float) -> None:
            while unknown:
                bars.update(unknown.pop(), completed=1, total=1)
            if not total:
                unknown.append(bars.add_task(stage, total=None, figures=""))
                return
            # A stage that starts again (the next evaluation, say) gets a new line.
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

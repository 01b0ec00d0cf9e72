"""How a long stage tells whoever is watching how far it is. Floor 0: knows neither stages nor screens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")


class Progress(Protocol):
    """Called by a stage after each unit of work; raises only KeyboardInterrupt, never slows the stage noticeably."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        """`stage` is a short label, `done` of `total` units are finished, `figures` are running means to show.

        A total of 0: how many there are is not known (a model being loaded). Such a stage ends when another reports.
        """
        ...


def silent(stage: str, done: int, total: int, **figures: float) -> None:
    """The Progress that shows nothing."""


def tracked(progress: Progress, stage: str, items: Sequence[ItemT]) -> Iterator[ItemT]:
    """The items one after the other; each counts as finished when the next is asked for."""
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        yield item
    progress(stage, len(items), len(items))


def part_of(progress: Progress, *, prefix: str = "", before: int = 0, total: int | None = None) -> Progress:
    """A Progress for one part of a longer stage, reporting to `progress` in the whole's terms.

    prefix: put in front of the stage's name. before: units finished before this part. total: of the whole
    (None: the part is the whole).
    """

    whole = total

    def forward(stage: str, done: int, total: int, **figures: float) -> None:
        progress(prefix + stage, before + done, total if whole is None else whole, **figures)

    return forward

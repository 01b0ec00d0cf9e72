"""How a long stage reports its progress: a function that the caller passes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")


class Progress(Protocol):
    """A function that a stage calls after each unit of work. It is fast and raises only KeyboardInterrupt."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        """Report that `done` of `total` units of a stage are finished.

        stage: a short label. figures: running means to show. total: 0 if it is not known, as while a model loads; such
        a stage ends when another reports.
        """
        ...


def silent(stage: str, done: int, total: int, **figures: float) -> None:
    """The Progress that shows nothing."""


def tracked(progress: Progress, stage: str, items: Sequence[ItemT]) -> Iterator[ItemT]:
    """Yield the items and report each as finished when the next is requested."""
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        yield item
    progress(stage, len(items), len(items))


def part_of(progress: Progress, *, prefix: str = "", before: int = 0, total: int | None = None) -> Progress:
    """A Progress for one part of a longer stage, which reports to `progress` as the whole stage.

    prefix: put before the stage's name. before: units finished before this part. total: of the whole stage; None: the
    part is the whole.
    """

    whole = total

    def forward(stage: str, done: int, total: int, **figures: float) -> None:
        progress(prefix + stage, before + done, total if whole is None else whole, **figures)

    return forward

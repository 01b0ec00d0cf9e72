"""A bound on the work of one comparison in the calling process. Beyond it, a worker continues, under a deadline.

In: a number of units, each about ten microseconds on an ordinary machine. Out: :class:`Spent`, raised where the work is
done. It counts work, not time, so that the same question takes the same way on a busy machine. In a worker, and
wherever nobody has set an allowance, nothing is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

CALLER_UNITS = 5_000  #: about fifty milliseconds: what the calling process may spend on one comparison


class Spent(Exception):
    """The allowance is used up."""


_purse = threading.local()


@contextmanager
def allowance(units: int) -> Iterator[None]:
    """Let this thread spend so many units while the block runs; :func:`spend` raises :class:`Spent` beyond them."""
    before = getattr(_purse, "left", None)
    _purse.left = units
    try:
        yield
    finally:
        _purse.left = before


def spend(units: int) -> None:
    """Count units of work that are about to be done. Raises :class:`Spent` if they are not left."""
    left: int | None = getattr(_purse, "left", None)
    if left is None:
        return
    _purse.left = left - units
    if left < units:
        raise Spent

"""Limits the work of one comparison in the calling process; beyond the limit, a worker continues under a deadline.

In: a number of units, each about ten microseconds on an ordinary machine. Out: :class:`Spent`, raised where the work is
done. The allowance counts work, not time, so that a busy machine treats the same question the same way. Nothing is
counted in a worker, or where no allowance is set.
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
    """Let this thread spend ``units`` while the block runs; beyond them, :func:`spend` raises :class:`Spent`."""
    before = getattr(_purse, "left", None)
    _purse.left = units
    try:
        yield
    finally:
        _purse.left = before


def spend(units: int) -> None:
    """Count ``units`` of work before it is done. Raises :class:`Spent` if fewer units are left."""
    left: int | None = getattr(_purse, "left", None)
    if left is None:
        return
    _purse.left = left - units
    if left < units:
        raise Spent

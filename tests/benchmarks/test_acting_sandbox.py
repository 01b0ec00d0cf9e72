"""The benchmark of the interpreter: a few replies."""

from __future__ import annotations

from benchmarks.acting_sandbox import replying, table
from tests.environments.python.support import needs_bubblewrap


@needs_bubblewrap
def test_replies_are_counted_and_leave_nothing() -> None:
    found = replying(40, 2)
    assert found["replies_per_second"] > 0
    assert found["replies_per_second_replayed"] > 0
    assert found["leaked_processes"] <= 0
    assert found["leaked_descriptors"] <= 0
    assert table({"cores": 2, **found}).count("\n") == len(found) + 2

"""Measures how a runner divides its time between the engine and everything else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RunnerClock:
    """Measures how much time the engine takes and how much the rest takes.

    engine: CPU seconds inside calls of the engine (`submit`, `poll`, `cancel`), over all threads of this process.
    other:  CPU seconds of everything else, over all threads.
    wall:   elapsed seconds of both together.
    polls:  number of polls of the engine.
    """

    engine: float = 0.0
    other: float = 0.0
    wall: float = 0.0
    polls: int = 0

    @property
    def bookkeeping_share(self) -> float:
        """The share of the CPU time that was spent outside the engine, in [0, 1]. It is 0 before anything ran."""
        total = self.engine + self.other
        return self.other / total if total else 0.0

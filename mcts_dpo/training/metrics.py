"""Figures of the first and the last updates, and the displacement alarm.

In: each update's figures. Out: means, and one line per alarm. It is stored as JSON and read back equal, so that a
resumed training continues unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_dpo.training.settings import TrainingSettings

WINDOW = 10
"""Number of updates over which figures are averaged, for alarms and for the last figures."""


@dataclass(slots=True)
class MetricTracker:
    """Figures of the updates so far.

    window:  updates that are averaged.
    first:   the figures of the first update.
    recent:  the figures of the last `window` updates.
    alarms:  by kind, one line each, in order.
    clipped: updates whose gradient was clipped.
    """

    window: int
    first: dict[str, float] = field(default_factory=dict)
    recent: list[dict[str, float]] = field(default_factory=list)
    alarms: dict[str, str] = field(default_factory=dict)
    clipped: int = 0

    def add(self, update: int, figures: dict[str, float], clipped: bool, settings: TrainingSettings) -> list[str]:
        """Add the figures of `update` (1-based); returns the new alarms."""
        self.first = self.first or figures
        self.recent = [*self.recent, figures][-self.window :]
        self.clipped += clipped
        if len(self.recent) < self.window:
            return []
        bounds = {"chosen": settings.chosen_alarm, "rejected": settings.rejected_alarm}
        new = {kind: self._fall(kind, bound, update) for kind, bound in bounds.items() if kind not in self.alarms}
        found = {kind: line for kind, line in new.items() if line is not None}
        self.alarms |= found
        return list(found.values())

    def last(self) -> dict[str, float]:
        """Means over the last `window` updates."""
        return {name: _mean(self.recent, name) for name in self.first}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> MetricTracker:
        """The inverse of `as_dict`."""
        return cls(**data)

    def _fall(self, kind: str, bound: float, update: int) -> str | None:
        """The alarm, if the log-probability of the `kind` steps has fallen by more than `bound` nats."""
        name = f"{kind}_displacement"
        if name not in self.first:
            return None
        fall = -_mean(self.recent, name)
        # A comparison with NaN is false, so a fall of NaN sets off the alarm.
        if fall <= bound:
            return None
        return (
            f"displacement: by update {update} the {kind} steps' log-probability is {fall:.2f} nats below its "
            f"start (mean of {len(self.recent)} updates; alarm beyond {bound:g})"
        )


def _mean(figures: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(one[name] for one in figures) / len(figures)

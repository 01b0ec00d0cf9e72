from __future__ import annotations

import json

import pytest

from mcts_dpo.training import TrainingSettings
from mcts_dpo.training.metrics import MetricTracker

SETTINGS = TrainingSettings(chosen_alarm=0.5)


def figures(fall: float) -> dict[str, float]:
    return {"chosen_displacement": -fall, "rejected_displacement": 0.0}


def test_means_and_alarms_look_at_the_last_updates_alone() -> None:
    """Means of three: 0.47 after the third and fourth, 0.67 after the fifth; of all, 0.58 after the fourth."""
    metrics, alarms = MetricTracker(window=3), []
    for update, fall in enumerate([0.9, 0.3, 0.2, 0.9, 0.9, 0.9], 1):
        metrics = MetricTracker.of(json.loads(json.dumps(metrics.as_dict())))
        alarms += metrics.add(update, figures(fall), update == 2, SETTINGS)
    assert alarms == [metrics.alarms["chosen"]]
    assert "by update 5 the chosen steps' log-probability is 0.67 nats below its start (mean of 3 updates" in alarms[0]
    assert metrics.last() == pytest.approx(figures(0.9))
    assert (metrics.first, metrics.clipped) == (figures(0.9), 1)


def test_what_is_not_a_number_is_not_quietly_fine() -> None:
    assert MetricTracker(window=1).add(1, figures(float("nan")), False, SETTINGS) != []

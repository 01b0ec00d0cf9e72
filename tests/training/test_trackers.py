from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.training import TrainingSettings, train
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads: updates and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_shows_every_update_once_also_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    policy = tiny_policy(tmp_path / "policy")
    table = pairs_of(random_rows(16), digest_of(policy))
    settings = TrainingSettings(optimiser={"lr": 1e-3}, data={"batch_size": 4, "epochs": 2}, checkpoint={"updates": 3})
    board = tmp_path / "board"
    broken = settings.model_copy(update={"evaluate_every": 1})
    for last in (3, 5):  # before the first checkpoint, and after it
        # TensorBoard sorts event files by a name that begins with the second; within a second "10" is before "9".
        time.sleep(1.0)

        def fail(update: int, model: object, last: int = last) -> dict[str, float]:
            if update == last:
                raise RuntimeError("an evaluation that fails")
            return {}

        with pytest.raises(RuntimeError, match="an evaluation that fails"):
            train(policy, table, tmp_path / "out", broken, board=board, evaluate=fail)
    time.sleep(1.0)
    summary = train(policy, table, tmp_path / "out", settings, board=board)
    updates, losses = zip(*scalars(board, "train/loss"), strict=True)
    assert updates == tuple(range(1, 9))
    assert losses[0] == pytest.approx(summary.first["loss"], rel=1e-6)
    assert sum(losses) / 8 == pytest.approx(summary.last["loss"], rel=1e-6)


def test_a_tracker_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    missing = [name for name in ("wandb", "trackio") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("both are installed")
    policy = tiny_policy(tmp_path / "policy")
    settings = TrainingSettings(trackers=(missing[0],))
    with pytest.raises(InputError, match=rf"training\.trackers: '{missing[0]}' is not installed \(accepted after: pip"):
        train(policy, pairs_of(random_rows(4), digest_of(policy)), tmp_path / "out", settings)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]

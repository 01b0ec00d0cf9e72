"""What receives a training's figures besides its log: TensorBoard, Weights & Biases, Trackio.

In: names of trackers, a folder. Out: functions of (update, figures). TensorBoard is used if it is
installed; the others are used when they are named, and must be installed then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError

Tracker = Callable[[int, Mapping[str, float]], None]
PROJECT = "mcts-dpo"


@contextmanager
def trackers(
    names: Sequence[str], folder: Path | None, *, run: str, settings: Mapping[str, Any], resumed_at: int
) -> Iterator[list[Tracker]]:
    """The trackers while the block runs.

    folder:     of TensorBoard's files (None: none are written). run: the run's name; settings: the run's settings.
    resumed_at: updates done before (0: none); TensorBoard drops later ones, of a killed process or an earlier training.

    Raises InputError for a named tracker that is not installed.
    """
    with ExitStack() as stack:
        found: list[Tracker] = []
        for name in names:
            if name == "tensorboard":
                writer = _tensorboard(folder, resumed_at)
                if writer is not None:
                    stack.callback(writer.close)
                    found.append(_tensorboard_tracker(writer))
            else:
                module = _import(name)
                started = module.init(project=PROJECT, name=run, config=dict(settings))
                stack.callback(module.finish)
                found.append(_plain_tracker(started))
        yield found


def _tensorboard(folder: Path | None, resumed_at: int) -> Any | None:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=resumed_at + 1)


def _tensorboard_tracker(writer: Any) -> Tracker:
    def track(update: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(f"train/{name}", value, update)

    return track


def _plain_tracker(started: Any) -> Tracker:
    def track(update: int, figures: Mapping[str, float]) -> None:
        started.log(dict(figures), step=update)

    return track


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"training.trackers: {name!r} is not installed (accepted after: pip install {name})") from None

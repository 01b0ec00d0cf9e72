"""What each process does that `launching` starts with torchrun: one training, together with the other processes.

    torchrun --nproc-per-node N -m mcts_dpo.training.launched FOLDER

Reads FOLDER/call.json and writes what `train` or `train_value` writes. Rank 0 appends its progress to
FOLDER/events.jsonl, and every process its bad input. Any other error goes to the error file that torchrun names
(`torch.distributed.elastic`). The process ends when its standard input closes: the run that it trains for is gone.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import stat
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import record

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json

Event = dict[str, Any]


@record
def main(folder: Path) -> None:
    """Train as FOLDER/call.json says. Raises what the training raises."""
    _end_with_input()
    events = folder / "events.jsonl"
    try:
        _train(read_json(folder / "call.json"), events if os.environ.get("RANK", "0") == "0" else None)
    except InputError as error:
        _write(events, {"refused": str(error)})
        raise


def _train(call: dict[str, Any], events: Path | None) -> None:
    from mcts_dpo.training import TrainingSettings, train, train_process_reward, train_value

    logging.getLogger("mcts_dpo").addHandler(_Forward(events))
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restarts:
        again = f"training under torchrun: a process failed; restart {restarts} continues from the last checkpoint"
        _write(events, {"warning": again})
    if call["module"] is not None:
        sys.path.insert(0, os.getcwd())
        importlib.import_module(call["module"])
    settings = TrainingSettings.model_validate(call["settings"])
    given = call["arguments"]
    paths = {name: Path(given[name]) for name in ("log", "unfinished_at", "board")}

    def show(stage: str, done: int, total: int, **figures: float) -> None:
        _write(events, {"stage": stage, "done": done, "total": total, "figures": figures})

    options: dict[str, Any] = {"progress": show, **paths}
    if call["questions"] is not None:
        options["questions"] = Path(call["questions"])
    functions: dict[str, Any] = {"policy": train, "value": train_value, "process_reward": train_process_reward}
    functions[call["what"]](given["policy"], Path(given["data"]), Path(given["out"]), settings, **options)


class _Forward(logging.Handler):
    """Passes warnings on to the process that waits."""

    def __init__(self, events: Path | None) -> None:
        super().__init__(logging.WARNING)
        self.events = events

    def emit(self, record: logging.LogRecord) -> None:
        _write(self.events, {"warning": record.getMessage()})


def _write(events: Path | None, event: Event) -> None:
    """Append one line; a process of rank above 0 has nowhere to write its progress (None)."""
    if events is not None:
        with events.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")


def _end_with_input() -> None:
    """End torchrun and this process when the other end of the standard input closes, if that is a pipe."""
    with suppress(OSError):  # there may be no standard input
        if stat.S_ISFIFO(os.fstat(0).st_mode) and "TORCHELASTIC_RUN_ID" in os.environ:
            threading.Thread(target=partial(_wait_for_end, os.getppid()), daemon=True).start()


def _wait_for_end(torchrun: int) -> None:
    while os.read(0, 1):
        pass
    with suppress(ProcessLookupError):
        os.kill(torchrun, signal.SIGTERM)  # else it would start this process again
    os._exit(130)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

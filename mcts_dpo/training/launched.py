"""What each process that `launching` starts does: one training, together with the others.

    torchrun --nproc-per-node N -m mcts_dpo.training.launched FOLDER

In: FOLDER/call.json. Out: what `train` or `train_value` writes, and in FOLDER how far it is, the summary, or what this
process ended of. It ends when its standard input does: then the run that it trains for is gone.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import stat
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mcts_dpo.common.errors import InputError, RestartError
from mcts_dpo.common.files import read_json, write_json


def main(folder: Path) -> int:
    """Train as FOLDER/call.json says. Returns the exit code: 0; as `exits` has it for everything else."""
    rank = int(os.environ.get("RANK", "0"))
    _end_with_input()
    try:
        call = read_json(folder / "call.json")
        with (folder / "events.jsonl").open("a", encoding="utf-8") as events:
            summary = _train(call, events if rank == 0 else None)
        if rank == 0:
            write_json(folder / "summary.json", summary.as_dict())
        return 0
    except InputError as error:
        return _fail(folder, rank, "input", str(error), 2)
    except RestartError as error:
        return _fail(folder, rank, "memory", str(error), 75)
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        _fail(folder, rank, "failure", f"{type(error).__name__}{': ' if said else ''}{said}", 1)
        raise


def _train(call: dict[str, Any], events: IO[str] | None) -> Any:
    from mcts_dpo.training import TrainingSettings, train, train_value

    if call["module"] is not None:
        sys.path.insert(0, os.getcwd())
        importlib.import_module(call["module"])
    settings = TrainingSettings.model_validate(call["settings"])
    given = call["arguments"]
    paths = {name: Path(given[name]) for name in ("log", "unfinished_at", "board")}

    def tell(stage: str, done: int, total: int, **figures: float) -> None:
        _write(events, {"stage": stage, "done": done, "total": total, "figures": figures})

    logging.getLogger("mcts_dpo").addHandler(_Told(events))
    function = {"policy": train, "value": train_value}[call["what"]]
    return function(given["policy"], Path(given["data"]), Path(given["out"]), settings, **paths, progress=tell)


class _Told(logging.Handler):
    """Passes warnings on to the process that waits."""

    def __init__(self, events: IO[str] | None) -> None:
        super().__init__(logging.WARNING)
        self.events = events

    def emit(self, record: logging.LogRecord) -> None:
        _write(self.events, {"warning": record.getMessage()})


def _write(events: IO[str] | None, event: dict[str, Any]) -> None:
    if events is not None:
        events.write(json.dumps(event) + "\n")
        events.flush()


def _fail(folder: Path, rank: int, kind: str, message: str, code: int) -> int:
    write_json(folder / f"failure-{rank}.json", {"rank": rank, "kind": kind, "message": message, "at": time.time()})
    return code


def _end_with_input() -> None:
    """End this process when the other end of its standard input, if that is a pipe, is closed."""
    with suppress(OSError):  # there may be none
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""A training by several processes, on this machine or many: `torchrun` is started, watched, and started again.

In: what `train` or `train_value` would be called with. Out: the same files and summary. Here is the side of the process
that waits; what each of the started ones does is in `launched.py`. Between them lies a folder beside the training's own
(on storage that all machines see): `call.json`, what to do; `events.jsonl`, how far it is, as rank 0 tells;
`failure-N.json`, what process N ended of; `summary.json`. The processes' standard input is a pipe from the one that
waits: when that is gone, however it died, they end. Knows no loss and no loop.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.training.loop import TrainingSummary
from mcts_dpo.training.objectives.registry import module_of
from mcts_dpo.training.settings import LaunchSettings, TrainingSettings

PATIENCE = 30.0
"""Seconds that processes have to end, and that those of an earlier attempt, whose run died, have to let go."""
_POLL = 0.1
logger = logging.getLogger(__name__)


def check_launch(launch: LaunchSettings) -> None:
    """Raise InputError for a prefix that is no command here."""
    if launch.prefix and shutil.which(launch.prefix[0]) is None:
        raise InputError(f"launch.prefix: {launch.prefix[0]!r} is no command on this machine (accepted: one that is)")


class LaunchedError(RuntimeError):
    """Processes that trained have failed, more often than they are started again. The message is one line."""


def train_launched(
    what: Literal["policy", "value"],
    policy: str,
    data: Path,
    out: Path,
    settings: TrainingSettings,
    launch: LaunchSettings,
    *,
    log: Path,
    unfinished_at: Path,
    board: Path,
    progress: Progress = silent,
) -> TrainingSummary:
    """`trainer.train` ("policy") or `value_model.train_value` ("value"), by the processes that `launch` names.

    Processes that die, or fail by themselves, are started again and go on from the checkpoint. What torchrun and they
    print is in `torchrun.log` beside `log`; it goes when the training is finished.

    Raises InputError where a process does, LaunchedError when they have failed once more than `launch.restarts`.
    """
    said = log.with_name("torchrun.log")
    said.parent.mkdir(parents=True, exist_ok=True)
    call = {
        "what": what,
        "arguments": {"policy": policy, "data": str(data), "out": str(out), "log": str(log), "board": str(board)}
        | {"unfinished_at": str(unfinished_at)},
        "settings": settings.model_dump(mode="json"),
        "module": module_of(settings.objective.kind),
    }
    left = launch.restarts
    while True:
        _wait_for_earlier(unfinished_at)
        folder = Path(tempfile.mkdtemp(prefix=".launched.partial-", dir=said.parent))
        try:
            write_json(folder / "call.json", call)
            code = _run(_command(launch, folder), _environment(launch, settings), said, folder, progress)
            if code == 0 and (folder / "summary.json").exists():
                said.unlink()
                return TrainingSummary.of(read_json(folder / "summary.json"))
            kind, reason = _failure(folder, code, said)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if kind == "input":
            said.unlink()
            raise InputError(reason)
        if kind == "failure":
            if left == 0:
                raise LaunchedError(f"{reason}; what the processes printed is in {said}")
            left -= 1
        logger.warning("%s; the processes are started again and go on from the last checkpoint", reason)


def _command(launch: LaunchSettings, folder: Path) -> list[str]:
    torchrun = [*launch.prefix, sys.executable, "-m", "torch.distributed.run", *(launch.arguments or ["--standalone"])]
    return [*torchrun, f"--nproc-per-node={launch.processes}", "-m", "mcts_dpo.training.launched", str(folder)]


def _environment(launch: LaunchSettings, settings: TrainingSettings) -> dict[str, str]:
    """torchrun gives each process one thread if nobody says more; the machine's cores are there to be used."""
    threads = settings.threads or max(1, (os.cpu_count() or 1) // launch.processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _run(command: list[str], environment: dict[str, str], said: Path, folder: Path, progress: Progress) -> int:
    """Run the command to its end, passing on what the processes tell. Returns its exit code."""
    with said.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which ends the others.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        with _events(folder) as tell:
            while True:
                code = process.poll()
                tell(progress)
                if code is not None:
                    return code
                time.sleep(_POLL)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _events(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """A function that passes on the lines that have come since it was last called."""
    with (folder / "events.jsonl").open("a+", encoding="utf-8") as handle:
        handle.seek(0)
        begun = ""

        def tell(progress: Progress) -> None:
            nonlocal begun
            *lines, begun = (begun + handle.read()).split("\n")
            for event in map(json.loads, lines):
                if "warning" in event:
                    logger.warning("%s", event["warning"])
                else:
                    progress(event["stage"], event["done"], event["total"], **event["figures"])

        yield tell


def _failure(folder: Path, code: int, said: Path) -> tuple[str, str]:
    """What the processes ended of: "input", "memory" or "failure", and a line. Where they tell nothing, or only that
    another is gone, it was a death, of which torchrun knows the signal."""
    failures = [read_json(path) for path in folder.glob("failure-*.json")]
    for kind in ("input", "memory"):
        found = [failure["message"] for failure in failures if failure["kind"] == kind]
        if found:
            return kind, found[0]
    where = "training under torchrun"
    killed = re.findall(r"Signal \d+ \((\w+)\) received by PID (\d+)", said.read_text(errors="replace"))
    for name, process in killed:
        if name != "SIGTERM":  # by which torchrun ends the others
            return "failure", f"{where}: process {process} was killed ({name})"
    if failures:
        first = min(failures, key=lambda failure: float(failure["at"]))
        return "failure", f"{where}: rank {first['rank']}: {first['message']}"
    return "failure", f"{where}: it ended with exit code {code}"


def _wait_for_earlier(folder: Path) -> None:
    """Until nobody trains in `folder`: the processes of a run that was killed take a moment to notice."""
    lock, deadline = folder / ".lock", time.monotonic() + PATIENCE
    while lock.exists() and time.monotonic() < deadline:
        with suppress(OSError), lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_POLL)

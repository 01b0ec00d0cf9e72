"""Trains with several processes, on this machine or on many: starts `torchrun`, shows its progress, reads its failures.

`torchrun` (torch.distributed.elastic) starts the processes, watches them and starts them again when one fails. Each of
them runs `launched.py`. A folder next to the training's own, on storage that all machines see, connects them with this
process: `call.json` says what to do; the processes append their progress to `events.jsonl`; below `failures/`, torchrun
keeps the error file of every process that failed. The standard input of the processes is a pipe from this process: they
end when it closes, however this process died.
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

from mcts_dpo.common.errors import InputError, RestartError
from mcts_dpo.common.files import read_json, write_json
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.training.loop import TrainingSummary
from mcts_dpo.training.objectives.registry import module_of
from mcts_dpo.training.settings import LaunchSettings, TrainingSettings

What = Literal["policy", "value", "process_reward"]
RECORDS: dict[What, str] = {
    "policy": "training.json",
    "value": "value.json",
    "process_reward": "process_reward.json",
}
"""The file of a finished training that holds its settings and its summary."""
PATIENCE = 30.0
"""Seconds that processes get to end. Also how long a new run waits for the processes of a run that was killed."""
_POLL = 0.1
logger = logging.getLogger(__name__)


def check_launch(launch: LaunchSettings) -> None:
    """Raise InputError if `launch.prefix` is not a command on this machine."""
    if launch.prefix and shutil.which(launch.prefix[0]) is None:
        raise InputError(
            f"launch.prefix: {launch.prefix[0]!r} is not a command on this machine (accepted: one that is)"
        )


class LaunchedError(RuntimeError):
    """The processes failed more often than `launch.restarts` allows. The message is one line."""


def train_launched(
    what: What,
    policy: str,
    data: Path,
    out: Path,
    settings: TrainingSettings,
    launch: LaunchSettings,
    *,
    questions: Path | None = None,
    log: Path,
    unfinished_at: Path,
    board: Path,
    progress: Progress = silent,
) -> TrainingSummary:
    """Run `loop.train` ("policy"), `train_value` or `train_process_reward` in the processes that `launch` describes.

    torchrun starts the processes again after a failure, and they continue from the last checkpoint. Their output is in
    `torchrun.log` next to `log`; the file is deleted when the training succeeds.

    Raises InputError if a process does, and LaunchedError after `launch.restarts` restarts. Running out of memory never
    ends the training: the processes start again with a smaller budget.
    """
    output = log.with_name("torchrun.log")
    output.parent.mkdir(parents=True, exist_ok=True)
    call = {
        "what": what,
        "arguments": {"policy": policy, "data": str(data), "out": str(out), "log": str(log), "board": str(board)}
        | {"unfinished_at": str(unfinished_at)},
        "questions": None if questions is None else str(questions),
        "settings": settings.model_dump(mode="json"),
        "module": module_of(settings.objective.kind),
    }
    while True:
        _wait_for_earlier(unfinished_at)
        folder = Path(tempfile.mkdtemp(prefix=".launched.partial-", dir=output.parent))
        try:
            write_json(folder / "call.json", call)
            code = _run(_command(launch, folder), _environment(launch, settings), output, folder, progress)
            if code == 0:
                output.unlink()
                return TrainingSummary.of(read_json(out / RECORDS[what])["summary"])
            raise _failure(folder, code, output)
        except InputError:
            output.unlink()
            raise
        except RestartError as error:
            logger.warning("%s", error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _command(launch: LaunchSettings, folder: Path) -> list[str]:
    torchrun = [*launch.prefix, sys.executable, "-m", "torch.distributed.run", *(launch.arguments or ["--standalone"])]
    return [
        *torchrun,
        f"--nproc-per-node={launch.processes}",
        f"--max-restarts={launch.restarts}",
        f"--log-dir={folder / 'failures'}",
        *("-m", "mcts_dpo.training.launched", str(folder)),
    ]


def _environment(launch: LaunchSettings, settings: TrainingSettings) -> dict[str, str]:
    """The environment of the processes. torchrun gives each one thread by default; this shares out all cores."""
    threads = settings.threads or max(1, (os.cpu_count() or 1) // launch.processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _run(command: list[str], environment: dict[str, str], output: Path, folder: Path, progress: Progress) -> int:
    """Run the command to its end and pass its progress on. Returns its exit code.

    Raises InputError when a process reports bad input, which no restart can cure.
    """
    with output.open("wb") as handle:
        # In a session of its own, Ctrl-C reaches this process alone, which then ends the others.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        with _events(folder) as show:
            while True:
                code = process.poll()
                show(progress)
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
    """A function that passes on the new lines of `events.jsonl`; it raises InputError where a process reported one."""
    with (folder / "events.jsonl").open("a+", encoding="utf-8") as handle:
        handle.seek(0)
        begun = ""

        def show(progress: Progress) -> None:
            nonlocal begun
            *lines, begun = (begun + handle.read()).split("\n")
            for event in map(json.loads, lines):
                if "refused" in event:
                    raise InputError(event["refused"])
                if "warning" in event:
                    logger.warning("%s", event["warning"])
                else:
                    progress(event["stage"], event["done"], event["total"], **event["figures"])

        yield show


def _failure(folder: Path, code: int, output: Path) -> RestartError | LaunchedError:
    """Why the last attempt failed: by the error files of its processes, and by what torchrun printed.

    A lack of memory goes before other errors, and an early error before later ones: the other processes fail because
    one is gone. A killed process leaves no error file; torchrun prints its signal.
    """
    attempts = sorted((folder / "failures").glob("*/attempt_*"), key=lambda path: int(path.name.split("_")[1]))
    files = sorted(attempts[-1].glob("*/error.json"), key=lambda path: path.stat().st_mtime_ns) if attempts else []
    failures = [(path.parent.name, read_json(path)["message"]["message"].splitlines()[0]) for path in files]
    for _, message in failures:
        if message.startswith(f"{RestartError.__name__}: "):
            return RestartError(message.partition(": ")[2])
    where, more = "training under torchrun", f"; the output of the processes is in {output}"
    printed = output.read_text(errors="replace")
    for name, process in re.findall(r"Signal \d+ \((\w+)\) received by PID (\d+)", printed):
        if name != "SIGTERM":  # torchrun ends the others with SIGTERM
            return LaunchedError(f"{where}: process {process} was killed ({name}){more}")
    if failures:
        rank, message = failures[0]
        return LaunchedError(f"{where}: rank {rank}: {message}{more}")
    return LaunchedError(f"{where}: it ended with exit code {code}{more}")


def _wait_for_earlier(folder: Path) -> None:
    """Wait until no process trains in `folder`: those of a run that was killed take a moment to end."""
    lock, deadline = folder / ".lock", time.monotonic() + PATIENCE
    while lock.exists() and time.monotonic() < deadline:
        with suppress(OSError), lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_POLL)

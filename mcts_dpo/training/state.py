"""The folder of an unfinished training: a checkpoint and a log, from which a killed training resumes.

    checkpoint.safetensors   master weights, optimiser, random state, reference log-probabilities; as JSON in its header
                             the position, all counts, and what the run was made of
    log.jsonl                the training log so far, a line per update as it happens
    budget-N.json            memory did not suffice in a model in shards: resume with N tokens per forward pass
    .lock                    held by the process that trains

The checkpoint is one file and appears by rename: at every moment the old one or the new one exists. The log is ahead of
it; on resume it is truncated to the length that the checkpoint records.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import create_json, digest, explained, read_json, sweep_beside, whole
from mcts_dpo.common.settings import difference
from mcts_dpo.training.checkpoints import TrainState
from mcts_dpo.training.distributed import DistributedContext
from mcts_dpo.training.metrics import MetricTracker
from mcts_dpo.training.settings import TrainingSettings

FREE = (
    "checkpoint",
    "trackers",
    "evaluate_every",
    "on_alarm",
    "chosen_alarm",
    "rejected_alarm",
    "sharding",
)
"""Settings that may differ between a training and its continuation: no weight depends on them."""


logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainingProgress:
    """How far a training is. All but `reference` is stored as JSON.

    update:           updates done.
    max_batch_tokens: the current budget of a forward pass (halved if memory did not suffice).
    tokens, positions, scored, reference_tokens: running counts; see `TrainingSummary`.
    log_bytes:        length of the log.
    notes:            what a user should know, one line each.
    reference:        [sequences] log-probabilities of the steps under the reference; None until they are computed.
    """

    metrics: MetricTracker
    max_batch_tokens: int
    update: int = 0
    tokens: int = 0
    positions: int = 0
    scored: int = 0
    reference_tokens: int = 0
    log_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    reference: Tensor | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without `reference`."""
        names = [one.name for one in fields(self) if one.name not in ("metrics", "reference")]
        return {name: getattr(self, name) for name in names} | {"metrics": self.metrics.as_dict()}

    @classmethod
    def of(cls, data: Mapping[str, Any], reference: Tensor | None) -> TrainingProgress:
        """The inverse of `as_dict`."""
        return cls(**{**data, "metrics": MetricTracker.of(data["metrics"])}, reference=reference)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a training is made of: digests of the starting weights and of the data, and the settings."""

    policy: str
    data: str
    settings: TrainingSettings

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"policy": self.policy, "data": self.data, "settings": self.settings.model_dump(mode="json")}

    @property
    def digest(self) -> str:
        """One digest of all of it."""
        return digest(self.as_dict())

    def refuse(self, found: Mapping[str, Any], where: Path) -> None:
        """Raise InputError unless `found` (an `as_dict`) is this training, except settings that change no weight."""
        wrong = []
        if found["policy"] != self.policy:
            wrong.append("another policy")
        if found["data"] != self.data:
            wrong.append("other data")
        try:
            settings = TrainingSettings.model_validate(found["settings"])
        except ValueError:
            wrong.append("settings of another version")
        else:
            same = {name: getattr(self.settings, name) for name in FREE}
            wrong += [f"training.{line}" for line in difference(settings.model_copy(update=same), self.settings)]
        if wrong:
            raise InputError(
                f"{where}: checkpoint of another training ({'; '.join(wrong)}); "
                f"remove {where.parent} to start again, or give another --out"
            )


def data_digest(data: Any) -> str:
    """SHA-256 (hex) over all arrays, strings and numbers in dataclasses, mappings and tuples, except fields named
    `source`.

    Raises TypeError for anything else, whose `repr` may be incomplete (as that of a long array is).
    """
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode())
            found.update(np.ascontiguousarray(value).data)
        elif isinstance(value, Mapping):
            for name in sorted(value):
                found.update(name.encode())
                add(value[name])
        elif is_dataclass(value) and not isinstance(value, type):
            for one in fields(value):
                if one.name != "source":  # the same data in another file is the same data
                    found.update(one.name.encode())
                    add(getattr(value, one.name))
        elif isinstance(value, tuple):
            found.update(f"{len(value)} together".encode())
            for one in value:
                add(one)
        elif value is None or isinstance(value, str | int | float):
            found.update(repr(value).encode())
        else:
            raise TypeError(f"no digest of a {type(value).__name__}")

    add(data)
    return found.hexdigest()


class CheckpointManager:
    """Reads and writes the folder of an unfinished training. With several processes only rank 0 writes."""

    def __init__(self, folder: Path, identity: Identity, context: DistributedContext) -> None:
        self.folder = folder
        self.identity = identity
        self.context = context
        self.checkpoint = folder / "checkpoint.safetensors"
        self.saved_update: int | None = None
        self._saved_at = time.monotonic()
        self._log: IO[bytes] | None = None

    def due(self, update: int) -> bool:
        """Whether a checkpoint is due after `update` updates."""
        settings = self.identity.settings.checkpoint
        every, minutes = settings.updates, settings.minutes
        by_count = every is not None and update % every == 0 and update > 0
        return by_count or (minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)

    def load(self, trained: TrainState, optimizer: torch.optim.Optimizer) -> TrainingProgress | None:
        """Restore weights and optimiser from the checkpoint and return the rest; None if there is no checkpoint.

        A checkpoint that cannot be read is moved next to the folder, with a warning, and None is returned: the training
        starts again and ends in the same bytes. Raises InputError for a checkpoint of another training.
        """
        header: Any = None
        tensors: dict[str, Tensor] = {}
        damage = ""
        try:
            if self.checkpoint.exists():
                header, tensors = self._read(len(trained.master_weights))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            damage = " ".join(str(error).split()) or type(error).__name__
        if self.context.any(bool(damage)):
            if self.context.main:
                self._set_aside(damage)
            return None
        if header is None:
            return None
        _restore(tensors, trained, optimizer)
        self.saved_update = header["state"]["update"]
        reference = tensors.get("reference")
        return TrainingProgress.of(header["state"], None if reference is None else reference.to(trained.device))

    def _read(self, master_weights: int) -> tuple[Any, dict[str, Tensor]]:
        with safe_open(self.checkpoint, framework="pt") as file:
            header = json.loads(file.metadata()["training"])
            self.identity.refuse(header["identity"], self.checkpoint)
            TrainingProgress.of(header["state"], None)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        absent = {"random", *(f"master.{index:05d}" for index in range(master_weights))} - tensors.keys()
        if absent:
            raise KeyError(f"{min(absent)} is missing")
        return header, tensors

    def _set_aside(self, damage: str) -> None:
        target = self.folder.with_name(f"{self.folder.name}.damaged.safetensors")
        while target.exists():
            target = target.with_name(f"{target.stem}~.safetensors")
        self.checkpoint.rename(target)
        logger.warning(
            "%s: not a checkpoint of a training (%s); set aside as %s; the training starts again",
            self.checkpoint,
            damage,
            target,
        )

    def save(self, state: TrainingProgress, trained: TrainState, optimizer: torch.optim.Optimizer) -> None:
        """Replace the checkpoint by the current state. A collective operation if the model is in shards."""
        tensors = _tensors(trained, optimizer)
        if self.context.main:
            if state.reference is not None:
                tensors["reference"] = state.reference.cpu()
            if self._log is not None:
                # The checkpoint records the log's length; the log must be on disk first.
                os.fsync(self._log.fileno())
            header = {"identity": self.identity.as_dict(), "state": state.as_dict()}
            with whole(self.checkpoint) as scratch:
                save_file(tensors, scratch, metadata={"training": json.dumps(header)})
        self.saved_update = state.update
        self._saved_at = time.monotonic()

    def halve(self, budget: int, note: str) -> bool:
        """Store a smaller token budget for the next start. Any process may call it; the first gets True."""
        about = {"max_batch_tokens": budget, "note": note, "identity": self.identity.digest}
        return create_json(self.folder / f"budget-{budget}.json", about)

    def halved(self) -> Mapping[str, Any] | None:
        """The smallest budget stored for this training, with its note; None without one."""
        found = [read_json(path) for path in self.folder.glob("budget-*.json")]
        mine = [one for one in found if one["identity"] == self.identity.digest]
        return min(mine, key=lambda one: int(one["max_batch_tokens"]), default=None)

    def open_log(self, at: int) -> None:
        """Open the log for appending after its first `at` bytes; later bytes are dropped."""
        if self.context.main:
            path = self.folder / "log.jsonl"
            self._log = path.open("r+b" if path.exists() else "w+b")
            self._log.truncate(at)
            self._log.seek(at)

    def write_line(self, line: str) -> int:
        """Append a line and flush it; returns the log's length in bytes."""
        if self._log is None:
            return 0
        self._log.write(line.encode() + b"\n")
        self._log.flush()
        return self._log.tell()

    def close_log(self) -> None:
        """Close the log."""
        if self._log is not None:
            # Every line was flushed when it was written; a full disk was reported then.
            with suppress(OSError):
                self._log.close()
            self._log = None


@contextmanager
def checkpoints_in(
    folder: Path, identity: Identity, context: DistributedContext, *, out: Path, log: Path | None
) -> Iterator[CheckpointManager]:
    """Hold the folder, locked, while the block runs. Afterwards the log is at `log` and the folder is removed.

    If the block fails, the folder stays if it holds a checkpoint or a smaller budget, and no log appears. Partial files
    of `out` from killed processes are removed first. Raises InputError while another process trains there.
    """
    checkpoints = CheckpointManager(folder, identity, context)
    if not context.main:
        yield checkpoints
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is training there") from None
        sweep_beside(checkpoints.checkpoint)
        sweep_beside(out)
        try:
            yield checkpoints
            checkpoints.close_log()
            if log is not None:
                sweep_beside(log)
                with whole(log) as scratch:
                    shutil.copyfile(folder / "log.jsonl", scratch)
        except BaseException:
            checkpoints.close_log()
            if not checkpoints.checkpoint.exists() and checkpoints.halved() is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained_disk(folder: Path) -> Iterator[None]:
    """Turn a failure to write a training in `folder` into an InputError that says what is safe."""

    def kept() -> str:
        there = (folder / "checkpoint.safetensors").exists()
        return f"the last checkpoint is kept in {folder}" if there else "nothing was kept"

    with explained(folder.parent, kept):
        yield


def _tensors(trained: TrainState, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that is a tensor, whole (not in shards) and on the CPU."""
    found = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["random.cuda"] = torch.cuda.get_rng_state()
    for index, master in enumerate(trained.master_weights):
        found[f"master.{index:05d}"] = trained.gathered(index, master.detach())
        for name, value in optimizer.state.get(master, {}).items():
            scalar = value.dim() == 0
            found[f"optimizer.{index:05d}.{name}"] = (
                value.detach().cpu().clone() if scalar else trained.gathered(index, value)
            )
    return found


def _restore(tensors: Mapping[str, Tensor], trained: TrainState, optimizer: torch.optim.Optimizer) -> None:
    torch.set_rng_state(tensors["random"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    with torch.no_grad():
        for index, master in enumerate(trained.master_weights):
            master.copy_(trained.own_part(index, tensors[f"master.{index:05d}"]))
            prefix = f"optimizer.{index:05d}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if state:
                optimizer.state[master] = {
                    name: value.to(master.device)
                    if value.dim() == 0
                    else trained.own_part(index, value).to(master.device).clone()
                    for name, value in state.items()
                }
    trained.publish_master_weights()

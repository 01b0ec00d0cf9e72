"""What an unfinished training run leaves in its folder, so that a killed one goes on where it was.

    checkpoint.safetensors   master weights, optimiser, random state, reference log-probabilities; as JSON in its header
                             the position, all counts, and what the run was made of
    log.jsonl                the training log so far, a line per update as it happens
    budget-N.json            memory did not suffice in a model in shards: go on with N tokens per forward pass
    .lock                    held by the process that trains

The checkpoint is one file and appears by rename: at every moment the old one or the new one is there. The log runs
ahead of it and is cut back to its length on resume. Knows no loss and no schedule.
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
from mcts_dpo.training.distributed import World
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
"""Settings that may differ between a run and its continuation: no weight depends on them."""


logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainingProgress:
    """How far a run is. All but `reference` goes through JSON unchanged.

    update:           updates done.
    max_batch_tokens: the budget of a forward pass as it stands (halved where memory did not suffice).
    tokens, positions, scored, reference_tokens: running counts; see `TrainingSummary`.
    log_bytes:        length of the log.
    notes:            what happened that a user should know, one line each.
    reference:        [sequences] log-probabilities of the steps under the reference; None before they are computed.
    """

    watch: MetricTracker
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
        names = [one.name for one in fields(self) if one.name not in ("watch", "reference")]
        return {name: getattr(self, name) for name in names} | {"watch": self.watch.as_dict()}

    @classmethod
    def of(cls, data: Mapping[str, Any], reference: Tensor | None) -> TrainingProgress:
        """What `as_dict` gave."""
        return cls(**{**data, "watch": MetricTracker.of(data["watch"])}, reference=reference)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run is made of: digests of the starting weights and of the training data, and the settings."""

    policy: str
    data: str
    settings: TrainingSettings

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"policy": self.policy, "data": self.data, "settings": self.settings.model_dump(mode="json")}

    @property
    def digest(self) -> str:
        """One word for all of it."""
        return digest(self.as_dict())

    def refuse(self, found: Mapping[str, Any], where: Path) -> None:
        """Raise InputError unless `found` (an `as_dict`) is this run, settings that move no weight aside."""
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
                f"remove {where.parent} to begin anew, or give another --out"
            )


def data_digest(data: Any) -> str:
    """SHA-256 (hex) over all arrays, strings and numbers in dataclasses, mappings and tuples; `source` fields apart.

    Raises TypeError for anything else: its `repr` may leave out what matters, as that of a long array does.
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
    """The folder of a run that is not finished. In a world of several processes, rank 0's alone does anything."""

    def __init__(self, folder: Path, identity: Identity, world: World) -> None:
        self.folder = folder
        self.identity = identity
        self.world = world
        self.checkpoint = folder / "checkpoint.safetensors"
        self.saved_update: int | None = None
        self._saved_at = time.monotonic()
        self._log: IO[bytes] | None = None

    def due(self, update: int) -> bool:
        """Whether a checkpoint should be written after `update` updates."""
        settings = self.identity.settings.checkpoint
        every, minutes = settings.updates, settings.minutes
        by_count = every is not None and update % every == 0 and update > 0
        return by_count or (minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)

    def load(self, trained: TrainState, optimizer: torch.optim.Optimizer) -> TrainingProgress | None:
        """Put the checkpoint's weights and optimiser in place and return the rest; None if there is no checkpoint.

        One that cannot be read is set aside beside the folder, with a line that says so, and None is returned: the
        training begins anew, and ends in the same bytes. Raises InputError for a checkpoint of another training.
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
        if self.world.any(bool(damage)):
            if self.world.main:
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
        absent = {"random", *(f"master.{place:05d}" for place in range(master_weights))} - tensors.keys()
        if absent:
            raise KeyError(f"{min(absent)} is missing")
        return header, tensors

    def _set_aside(self, damage: str) -> None:
        target = self.folder.with_name(f"{self.folder.name}.damaged.safetensors")
        while target.exists():
            target = target.with_name(f"{target.stem}~.safetensors")
        self.checkpoint.rename(target)
        logger.warning(
            "%s: not a checkpoint of a training (%s); set aside as %s, and the training begins anew",
            self.checkpoint,
            damage,
            target,
        )

    def save(self, state: TrainingProgress, trained: TrainState, optimizer: torch.optim.Optimizer) -> None:
        """Replace the checkpoint by one of this moment. A collective operation where the model is in shards."""
        tensors = _tensors(trained, optimizer)
        if self.world.main:
            if state.reference is not None:
                tensors["reference"] = state.reference.cpu()
            if self._log is not None:
                # The checkpoint vouches for the log up to here; it must be on disk first.
                os.fsync(self._log.fileno())
            header = {"identity": self.identity.as_dict(), "state": state.as_dict()}
            with whole(self.checkpoint) as scratch:
                save_file(tensors, scratch, metadata={"training": json.dumps(header)})
        self.saved_update = state.update
        self._saved_at = time.monotonic()

    def halve(self, budget: int, note: str) -> bool:
        """Leave a smaller token budget for the next start. Any process may; the first of all is told True."""
        about = {"max_batch_tokens": budget, "note": note, "identity": self.identity.digest}
        return create_json(self.folder / f"budget-{budget}.json", about)

    def halved(self) -> Mapping[str, Any] | None:
        """The smallest budget that was left for this training, with its note; None if none was."""
        found = [read_json(path) for path in self.folder.glob("budget-*.json")]
        mine = [one for one in found if one["identity"] == self.identity.digest]
        return min(mine, key=lambda one: int(one["max_batch_tokens"]), default=None)

    def open_log(self, at: int) -> None:
        """Begin (at=0) or go on with the log, whose first `at` bytes stand."""
        if self.world.main:
            path = self.folder / "log.jsonl"
            self._log = path.open("r+b" if path.exists() else "w+b")
            self._log.truncate(at)
            self._log.seek(at)

    def write_line(self, line: str) -> int:
        """Append a line that readers see at once; returns the log's length in bytes."""
        if self._log is None:
            return 0
        self._log.write(line.encode() + b"\n")
        self._log.flush()
        return self._log.tell()

    def close_log(self) -> None:
        """End writing."""
        if self._log is not None:
            # Every line was flushed when it was written; what cannot be is the full disk that was complained of then.
            with suppress(OSError):
                self._log.close()
            self._log = None


@contextmanager
def checkpoints_in(
    folder: Path, identity: Identity, world: World, *, out: Path, log: Path | None
) -> Iterator[CheckpointManager]:
    """The folder while the block runs, locked. Afterwards the log is at `log`, whole, and the folder is gone.

    When the block fails, the folder stays if there is a checkpoint or a smaller budget in it, and no log appears. What
    killed processes left of `out` is removed first. Raises InputError while another process trains there.
    """
    run = CheckpointManager(folder, identity, world)
    if not world.main:
        yield run
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is training there") from None
        sweep_beside(run.checkpoint)
        sweep_beside(out)
        try:
            yield run
            run.close_log()
            if log is not None:
                sweep_beside(log)
                with whole(log) as scratch:
                    shutil.copyfile(folder / "log.jsonl", scratch)
        except BaseException:
            run.close_log()
            if not run.checkpoint.exists() and run.halved() is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained_disk(folder: Path) -> Iterator[None]:
    """Turn what keeps a training in `folder` from being written into an InputError that says what is safe."""

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
    for place, master in enumerate(trained.master_weights):
        found[f"master.{place:05d}"] = trained.gathered(place, master.detach())
        for name, value in optimizer.state.get(master, {}).items():
            scalar = value.dim() == 0
            found[f"optimizer.{place:05d}.{name}"] = (
                value.detach().cpu().clone() if scalar else trained.gathered(place, value)
            )
    return found


def _restore(tensors: Mapping[str, Tensor], trained: TrainState, optimizer: torch.optim.Optimizer) -> None:
    torch.set_rng_state(tensors["random"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    with torch.no_grad():
        for place, master in enumerate(trained.master_weights):
            master.copy_(trained.own_part(place, tensors[f"master.{place:05d}"]))
            prefix = f"optimizer.{place:05d}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if state:
                optimizer.state[master] = {
                    name: value.to(master.device)
                    if value.dim() == 0
                    else trained.own_part(place, value).to(master.device).clone()
                    for name, value in state.items()
                }
    trained.publish_master_weights()

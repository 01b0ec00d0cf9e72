"""Whose a run directory is, what of it is finished, and that one process at a time works in it.

In: a config, a directory. Out: `config.yaml` and `environment.json` in it, manifests checked, a lock. Knows neither
stages nor what they make.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcts_dpo.config import RunConfig
from mcts_dpo.files import InputError, append_json_line, digest, free_name, read_json, whole, write_json
from mcts_dpo.settings import difference, dump_settings, load_settings

LIBRARIES = ("torch", "transformers", "peft", "numpy", "numba", "datasets", "mcts-dpo")


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, for a manifest."""
    with path.open("rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def check_manifest(manifest: Path, place: Path) -> None:
    """A finished stage's files must still be there: by name and size, which costs nothing."""
    for name, fingerprint in read_json(manifest)["files"].items():
        path = place / name
        if not path.exists() or path.stat().st_size != fingerprint["bytes"]:
            state = "is missing" if not path.exists() else "has changed"
            raise InputError(f"{path}: {state} since its stage finished; delete {manifest} to run the stage again")


def set_damaged_aside(manifest: Path, place: Path) -> list[str]:
    """Which files of a finished stage are missing or are not, to the byte, what it has written; one line for each.

    Those that are there are moved to the folder "damaged" in `place`, under their own names.
    """
    found = []
    for name, expected in read_json(manifest)["files"].items():
        path = place / name
        if not path.exists():
            found.append(f"{path}: is missing")
        elif path.stat().st_size != expected["bytes"] or fingerprint(path) != expected:
            found.append(f"{path}: is not what its stage has written; set aside as {set_aside(path, place)}")
    return found


def set_aside(path: Path, place: Path) -> Path:
    """Move a file below `place` to the folder "damaged" there. Returns where it is."""
    target = free_name(place / "damaged" / path.relative_to(place))
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(target)


def claim(config: RunConfig, directory: Path, force: bool) -> None:
    """Write the config into a new run directory, or check that the directory is this config's own.

    force: take it over from another config: finished stages stay, what was under way goes, the change is written down.

    Raises InputError with the differences, and touches nothing then.
    """
    target = directory / "config.yaml"
    if target.exists():
        earlier = load_settings(RunConfig, target)
        # More rounds of the same run continue it, on however many devices; all else would make two runs of one.
        free = {"rounds": config.rounds, "launch": config.launch}
        changes = difference(earlier.model_copy(update=free), config)
        if changes and not force:
            raise InputError(
                f"{directory}: holds a run of another config ({'; '.join(changes)}); give another directory, or "
                "--force to go on with the new one (finished stages stay as they are)"
            )
        if config.rounds < earlier.rounds:
            raise InputError(
                f"{directory}: holds a run of {earlier.rounds} rounds; rounds can grow, not shrink to {config.rounds}"
            )
        if changes:
            append_json_line(directory / "changes.jsonl", {"finished": _finished(directory), "changes": changes})
            for journal in directory.glob("round-*/trees/*.journal"):
                journal.unlink()
            for unfinished in directory.glob("round-*/**/unfinished"):
                shutil.rmtree(unfinished)
    elif any(directory.glob("round-*")):
        raise InputError(f"{directory}: holds rounds but no config.yaml; give another directory")
    with whole(target) as scratch:
        scratch.write_text(dump_settings(config), encoding="utf-8")
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "config": digest(config.model_dump(mode="json")),
    }
    write_json(directory / "environment.json", environment)


def _finished(directory: Path) -> list[str]:
    """The stages that are done, as "round-000/search"."""
    return [f"{path.parents[1].name}/{path.stem}" for path in sorted(directory.glob("*/stages/*.json"))]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the system lets go of it when the process dies, however it dies."""
    with (directory / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process is running in it") from None
        yield

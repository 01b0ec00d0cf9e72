"""A run directory: which config it belongs to, which of its files are sound, and a lock for one process at a time.

In: a config, a directory. Out: `config.yaml` and `environment.json` in it, checked manifests, a lock.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import append_json_line, digest, file_digest, free_name, read_json, whole, write_json
from mcts_dpo.common.settings import difference, dump_settings, load_settings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.search import policy_fingerprint

LIBRARIES = ("torch", "transformers", "peft", "numpy", "numba", "datasets", "mcts-dpo")


STAGES = ("search", "pairs", "train", "value", "process", "evaluate")
"""The stages of a round in order. Each reads the files of those before it."""


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, for a manifest. The file is read every time."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path, cached=False)}


def is_sound(place: Path) -> bool:
    """Whether a round is finished, and the files that later rounds read are as its stages wrote them.

    All files except the trees are read and hashed. No later round reads the trees, so only their size is checked.

    Raises InputError if only trees are missing or of another size: another search would be needed only for them.
    """
    manifests = sorted((place / "stages").glob("*.json"))
    if not any(manifest.stem == "evaluate" for manifest in manifests):
        return False
    if not all(_is_as_written(manifest, place) for manifest in manifests if manifest.stem != "search"):
        return False
    search = place / "stages" / "search.json"
    for name, expected in read_json(search)["files"].items() if search.exists() else ():
        path = place / name
        if not path.exists() or path.stat().st_size != expected["bytes"]:
            state = "is missing" if not path.exists() else "has changed"
            raise InputError(f"{path}: {state} since its stage finished; delete {search} to run the stage again")
    return True


def _is_as_written(manifest: Path, place: Path) -> bool:
    """Whether every file of a finished stage is byte for byte as the stage wrote it."""
    files = read_json(manifest)["files"]
    return all(_matches(place / name, expected) for name, expected in files.items())


def _matches(path: Path, expected: dict[str, Any]) -> bool:
    return path.exists() and path.stat().st_size == expected["bytes"] and fingerprint(path) == expected


def set_damaged_aside(manifest: Path, place: Path) -> list[str]:
    """The files of a finished stage that are missing or have changed; one line for each.

    Changed files are moved to the folder "damaged" in `place`, under their own names.
    """
    found = []
    for name, expected in read_json(manifest)["files"].items():
        path = place / name
        if not path.exists():
            found.append(f"{path}: is missing")
        elif not _matches(path, expected):
            found.append(f"{path}: is not as its stage wrote it; set aside as {set_aside(path, place)}")
    return found


def undo_after(stage: str, place: Path) -> list[str]:
    """Set aside the files of the stages after `stage`, which have read files that changed. They must run again.

    Returns their names. Raises InputError, and changes nothing, if a later round was made from this one.
    """
    later = [other.name for other in sorted(place.parent.glob("round-*")) if other.name > place.name]
    if stage != "evaluate" and any((place.parent / name / "stages").glob("*.json") for name in later):
        raise InputError(
            f"{place}: the damaged files of the stage {stage} came out different when they were made again, and "
            f"{later[0]} is made from them; put the files in {place / 'damaged'} back as they were, or delete "
            f"{', '.join(later)}"
        )
    undone = []
    for name in STAGES[STAGES.index(stage) + 1 :]:
        manifest = place / "stages" / f"{name}.json"
        if manifest.exists():
            for file in read_json(manifest)["files"]:
                if (place / file).exists():
                    set_aside(place / file, place)
            manifest.unlink()
            undone.append(name)
    return undone


def set_aside(path: Path, place: Path) -> Path:
    """Move a file below `place` to the folder "damaged" there. Returns its new path."""
    target = free_name(place / "damaged" / path.relative_to(place))
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(target)


def claim(config: RunConfig, directory: Path, force: bool) -> None:
    """Write the config into a new run directory, or check that the directory belongs to it.

    force: take the directory over from another config. Finished stages stay, unfinished ones are removed, and the
    change is recorded.

    Raises InputError with the differences, and then changes nothing.
    """
    target = directory / "config.yaml"
    if target.exists():
        try:
            earlier = load_settings(RunConfig, target)
        except InputError as error:
            raise InputError(
                f"{error}; change it in this file to continue the run (`mcts-dpo settings --migrate {target}` prints "
                "it with today's names), or give another directory"
            ) from None
        # A run can continue with more rounds and other devices. Any other change would make it another run.
        free = {"rounds": config.rounds, "launch": config.launch}
        changes = difference(earlier.model_copy(update=free), config)
        changes += _other_policy(earlier, config, directory)
        if changes and not force:
            raise InputError(
                f"{directory}: holds a run of another config ({'; '.join(changes)}); give another directory, or "
                "--force to continue with the new one (finished stages stay as they are)"
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
        "policy": policy_fingerprint(config.model),
    }
    write_json(directory / "environment.json", environment)


def _other_policy(earlier: RunConfig, config: RunConfig, directory: Path) -> list[str]:
    """A message if the starting policy has other weights, or another tokenizer, than when the run began.

    Nothing if it has the same, if its name has changed, or if the run's record does not say.
    """
    record = directory / "environment.json"
    known = read_json(record).get("policy") if record.exists() else None
    if known is None or earlier.model != config.model or known == policy_fingerprint(config.model):
        return []
    return [f"model: the files in {config.model} are not those that the run began with"]


def _finished(directory: Path) -> list[str]:
    """The finished stages, as "round-000/search"."""
    return [f"{path.parents[1].name}/{path.stem}" for path in sorted(directory.glob("*/stages/*.json"))]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory. The system releases it when the process ends, also after a kill."""
    with (directory / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process is running in it") from None
        yield

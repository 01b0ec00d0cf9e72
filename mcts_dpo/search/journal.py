"""An append-only log of a search. It stores every result at once, so that a killed search loses none of them.

In: results of the coroutines of one shard: completions of the engine, and lists of a call's results. Out: the same
results after a kill, in the order of writing. runner.py replays them as if they came now.

Each record is length, checksum and payload. The checksum is the CRC-32 of all payloads up to and including this one.
So a record does not fit if it is damaged, repeated, missing, moved or from another journal. The records after it do not
fit either. A journal is checked when it is opened, and again when it is replayed. The first record that cannot be used
and all bytes after it are moved to a file `*.journal.damaged`, and a log message reports it. The search then asks for
those results again. A last record that a kill cut short is dropped.

The first record identifies the search: settings, prompt, problems, tokenizer, policy. Every record is written to the
operating system at once. It is synced to the disk with the first record that comes more than a second after the last
sync. So a killed process loses nothing. A power failure loses the records since the last sync.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, file_digest, free_name, read_json, whole
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Completion, Sample
from mcts_dpo.engines.coroutine import Work
from mcts_dpo.environments import EnvironmentSettings
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import RewardSettings
from mcts_dpo.search.result_log import Recorded, fingerprint
from mcts_dpo.search.settings import SearchSettings

logger = logging.getLogger(__name__)

FORMAT = 3
_HEAD = struct.Struct("<II")  # bytes of the payload, checksum
_KIND = b'{"kind":'  # the text of every record begins so; inside a text it would be escaped
_SYNC = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class _Stored:
    """A record of the file. start, end: byte offsets. head: its JSON text, parsed. body: the bytes after the text."""

    start: int
    end: int
    checksum: int
    head: dict[str, Any]
    body: bytes


def identity(
    search: SearchSettings, prompt: PromptSettings, problems: Sequence[Problem], mode: str, policy: str
) -> dict[str, str]:
    """Identifies a search: a digest of each thing that its trees depend on, by name. policy: its fingerprint."""
    found = {
        "search settings": digest(search.model_dump(mode="json")),
        "prompt": digest(prompt.model_dump(mode="json")),
        "problems": digest([asdict(problem) for problem in problems], mode),
        "policy": policy,
    }
    entries: list[RewardSettings | EnvironmentSettings] = [*search.rewards, search.environment]
    for one in entries:
        found |= {f"{one.kind} at {path}": policy_fingerprint(str(path)) for path in one.files()}
    return found


def differing(known: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The names in `wanted` whose value in `known` differs or is missing."""
    return [name for name in wanted if known.get(name) != wanted[name]]


def policy_fingerprint(policy: str) -> str:
    """Identifies a policy: a digest of the names and of all bytes of its files.

    If the policy is an adapter and its base model is a local folder, the base model counts too. The fingerprint of a
    hub name is the name itself. The files are read in full (about 2 GB a second), once per process (see `file_digest`).
    """
    places = list(_policy_places(policy))
    if not places:
        return policy
    return digest([[name, file_digest(file)] for place in places for name, file in _files_in(place)])


def _policy_places(policy: str) -> Iterator[Path]:
    """The local folders or files of a policy: first its own, then those of the models that it adapts."""
    seen: set[Path] = set()
    path = Path(policy).expanduser()
    while path.exists() and path.resolve() not in seen:
        yield path
        seen.add(path.resolve())
        config = path / "adapter_config.json"
        base = read_json(config).get("base_model_name_or_path") if config.is_file() else None
        if isinstance(base, str):
            path = path / base if (path / base).exists() and not Path(base).exists() else Path(base)


def _files_in(place: Path) -> list[tuple[str, Path]]:
    """Pairs (name in the folder, file) of all files, sorted by name."""
    if place.is_file():
        return [(place.name, place)]
    return sorted((str(file.relative_to(place)), file) for file in place.rglob("*") if file.is_file())


class Journal:
    """The journal of one shard. It is open for appending, and a file lock keeps other processes out."""

    def __init__(self, path: Path, owner: dict[str, str], *, keep: bool = True) -> None:
        """Open or create the journal at `path`. Raises InputError if it belongs to another search or is in use.

        owner: identifies the search (`identity` and the tokenizer). keep: False empties the journal first.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InputError(f"{path}: another process is searching this shard") from None
        self.entries: list[Recorded] = []
        self._places: list[tuple[int, int]] = []  # of each entry: its start, the checksum before it
        self._checksum = 0
        self._synced = time.monotonic()
        try:
            self._read(owner, keep)
        except BaseException:
            os.close(self._file)
            raise

    def record(self, coroutine: int, number: int, work: Work, result: Any) -> None:
        """Append one result (see `ResultLog`)."""
        head: dict[str, Any] = {"kind": "result", "at": [coroutine, number], "work": fingerprint(work)}
        if not isinstance(result, Completion):
            self._append(head | {"values": [_plain(value) for value in result]})
            return
        samples = result.samples
        head |= {"error": result.error, "probabilities": list(result.probabilities), "logprobs": list(result.logprobs)}
        head["samples"] = [[len(sample.tokens), sample.finish, sample.text] for sample in samples]
        tokens = np.array([token for sample in samples for token in sample.tokens], "<i4")
        logprobs = np.array([value for sample in samples for value in sample.logprobs], "<f8")
        self._append(head, tokens.tobytes() + logprobs.tobytes())

    def close(self) -> None:
        """Close the file and keep it."""
        os.close(self._file)

    def remove(self) -> None:
        """Delete the journal, once its shard is complete."""
        self.path.unlink()
        self.close()

    def set_aside_from(self, position: int, why: str) -> None:
        """Move the entry at `position` and all after it to a file next to the journal. A log message gives `why`."""
        start, self._checksum = self._places[position]
        self._drop(self.path.read_bytes(), start, why)
        del self._places[position:]
        del self.entries[position:]

    def _append(self, head: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        payload = struct.pack("<I", len(text)) + text + body
        self._checksum = zlib.crc32(payload, self._checksum)
        data = _HEAD.pack(len(payload), self._checksum) + payload
        while data:
            data = data[os.write(self._file, data) :]
        if time.monotonic() - self._synced > _SYNC:
            os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _read(self, owner: dict[str, str], keep: bool) -> None:
        data = self.path.read_bytes()
        first = _stored(data, 0, 0)
        if first is not None and first.head.get("kind") == "journal":
            self._check(first.head, owner)
            if keep:
                self._checksum = first.checksum
                self._read_entries(data, first.end)
                return
        elif data:
            self._drop(data, 0, "its beginning is not that of a journal")
        os.ftruncate(self._file, 0)
        self._append({"kind": "journal", "format": FORMAT, "owner": owner})

    def _read_entries(self, data: bytes, start: int) -> None:
        while start < len(data):
            stored = _stored(data, start, self._checksum)
            try:
                if stored is None:
                    raise ValueError("it is damaged, or not where it was written")
                self.entries.append(_recorded(stored))
            except (ValueError, KeyError, TypeError) as error:
                self._drop(data, start, str(error))
                return
            self._places.append((start, self._checksum))
            start, self._checksum = stored.end, stored.checksum

    def _drop(self, data: bytes, start: int, why: str) -> None:
        """Cut the journal off at the start of a record. The rest is kept in a file, unless it is one torn record."""
        rest = data[start:]
        if _is_torn(rest):
            logger.warning("%s: its last record was cut short; it is dropped, and asked for again", self.path)
        else:
            aside = free_name(self.path.with_name(self.path.name + ".damaged"))
            with whole(aside) as scratch:
                scratch.write_bytes(rest)
            logger.warning(
                "%s: byte %d on cannot be used (%s); set aside as %s, and asked for again", self.path, start, why, aside
            )
        os.ftruncate(self._file, start)

    def _check(self, head: dict[str, Any], owner: dict[str, str]) -> None:
        if head.get("format") != FORMAT or not isinstance(head.get("owner"), dict):
            found = f"a journal of format {head.get('format')!r}"
            raise InputError(f"{self.path}: {found} (accepted: {FORMAT}); delete it to search its shard anew")
        other = differing(head["owner"], owner)
        if other:
            raise InputError(
                f"{self.path}: the journal of another search ({', '.join(other)} differ); "
                "give another folder, or delete it to search its shard anew"
            )


def _is_torn(rest: bytes) -> bool:
    """Whether `rest` is the beginning of a single record. A kill during a write leaves such an end."""
    size = _HEAD.unpack_from(rest)[0] if len(rest) >= _HEAD.size else len(rest)
    begins = rest[_HEAD.size + 4 : _HEAD.size + 4 + len(_KIND)]  # after the length of the text
    return size > len(rest) - _HEAD.size and _KIND.startswith(begins) and rest.count(_KIND) <= 1


def _stored(data: bytes, start: int, before: int) -> _Stored | None:
    """The record at `start`. None if it is incomplete or its checksum does not continue `before`."""
    if start + _HEAD.size > len(data):
        return None
    size, checksum = _HEAD.unpack_from(data, start)
    payload = data[start + _HEAD.size : start + _HEAD.size + size]
    if len(payload) < size or size < 4 or zlib.crc32(payload, before) != checksum:
        return None
    (length,) = struct.unpack_from("<I", payload)
    try:
        head = json.loads(payload[4 : 4 + length].decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    if not isinstance(head, dict):
        return None
    return _Stored(start, start + _HEAD.size + size, checksum, head, payload[4 + length :])


def _recorded(stored: _Stored) -> Recorded:
    """The result in a record. Raises ValueError, KeyError or TypeError if its kind or form is unknown."""
    head = stored.head
    if head["kind"] != "result":
        raise ValueError(f"a record of the unknown kind {head['kind']!r}")
    coroutine, number = map(int, head["at"])
    result: Any = head.get("values")
    if result is None:
        samples = _samples(head["samples"], stored.body)
        probabilities, logprobs = (tuple(map(float, head.get(name, ()))) for name in ("probabilities", "logprobs"))
        result = Completion(-1, samples, probabilities, head["error"], logprobs=logprobs)
    return Recorded(coroutine, number, int(head["work"]), result)


def _samples(about: list[list[Any]], body: bytes) -> tuple[Sample, ...]:
    total = sum(length for length, _, _ in about)
    tokens = np.frombuffer(body, "<i4", total).tolist()
    logprobs = np.frombuffer(body, "<f8", total, offset=4 * total).tolist()
    samples, at = [], 0
    for length, finish, text in about:
        samples.append(Sample(tuple(tokens[at : at + length]), text, tuple(logprobs[at : at + length]), finish))
        at += length
    return tuple(samples)


def _plain(value: Any) -> Any:
    """A value for JSON: a NumPy number becomes the Python number of the same value."""
    return value.item() if isinstance(value, np.generic) else value

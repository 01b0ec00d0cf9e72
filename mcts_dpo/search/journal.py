"""An append-only log of a search: what the engine gave, as it came, so that a killed search loses none of it.

In: completions and settled simulations of one task (one shard). Out: the same again after a kill. Each record is
length, CRC-32 and payload; a record that a kill cut short (or whose checksum is wrong) ends the log: it and what
follows it are dropped. The first record says whose journal it is: settings, prompt, problems, tokenizer, policy. Two
kinds follow: "samples" (tree, leaf, simulation, seed, tokens, log-probabilities, why each ended) the moment they
arrive, and "settled" (outcomes as verified, answers of the self-evaluations) for all simulations backed up together.
How a forest is rebuilt from them is in waves.py and events.py. Written through to the system with every record, to
the disk with the first record that comes a second after the last time: a killed process loses nothing, a machine
without power what came since.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mcts_dpo.engines.base import Completion, Sample
from mcts_dpo.files import InputError, digest, file_digest, read_json
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.rewards import Outcome
from mcts_dpo.search.settings import SearchSettings

FORMAT = 1
_HEAD = struct.Struct("<II")  # bytes of the payload, CRC-32 of the payload
_SYNC = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples that arrived: of which tree, leaf and simulation, drawn with which seed; or why there are none."""

    tree: int
    leaf: int
    index: int
    seed: int
    samples: tuple[Sample, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """A simulation that was backed up: verified outcomes of its new ends, answers to its questions, in order."""

    tree: int
    index: int
    outcomes: list[Outcome]
    answers: list[Completion]


@dataclass(slots=True)
class Record:
    """What a journal holds: entries in the order in which they were written, and the same by (tree, simulation)."""

    entries: list[Sampled | list[Settled]] = field(default_factory=list)
    sampled: dict[tuple[int, int], Sampled] = field(default_factory=dict)
    settled: dict[tuple[int, int], Settled] = field(default_factory=dict)


def identity(
    search: SearchSettings, prompt: PromptSettings, problems: Sequence[Problem], mode: str, policy: str
) -> dict[str, str]:
    """Whose trees they are: every part that they depend on, as digests by name."""
    found = {
        "search settings": digest(search.model_dump(mode="json")),
        "prompt": digest(prompt.model_dump(mode="json")),
        "problems": digest([asdict(problem) for problem in problems], mode),
        "policy": policy,
    }
    if search.value_model is not None:
        found["value model"] = policy_fingerprint(str(search.value_model.path))
    return found


def differing(known: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The names of what is wanted otherwise than it is known to be."""
    return [name for name in wanted if known.get(name) != wanted[name]]


def policy_fingerprint(policy: str) -> str:
    """What tells one policy from another: a digest of the names and of all bytes of its files.

    An adapter's base model counts too, where it is a local folder. Of a hub name the fingerprint is the name. The files
    are read in full (about 2 GB a second), and once per process (see `file_digest`).
    """
    places = list(_policy_places(policy))
    if not places:
        return policy
    return digest([[name, file_digest(file)] for place in places for name, file in _files_in(place)])


def _policy_places(policy: str) -> Iterator[Path]:
    """The local folders or files that a policy is made of: its own, then those of the models that it adapts."""
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
    """(name in the folder, file) of every file, in the order of the names."""
    if place.is_file():
        return [(place.name, place)]
    return sorted((str(file.relative_to(place)), file) for file in place.rglob("*") if file.is_file())


class Journal:
    """The journal of one shard, open for appending and held by this process alone."""

    def __init__(self, path: Path, owner: dict[str, str], *, keep: bool = True) -> None:
        """Open or begin the journal at `path`. Raises InputError if it is of another search, or in use.

        keep: False begins anew, whatever it holds.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InputError(f"{path}: another process is searching this shard") from None
        self.record = Record()
        self._synced = time.monotonic()
        try:
            self._read(owner, keep)
        except BaseException:
            os.close(self._file)
            raise

    def sampled(self, tree: int, leaf: int, index: int, seed: int, completion: Completion) -> None:
        """Samples have arrived."""
        samples = completion.samples
        head = {
            "kind": "samples",
            "at": [tree, leaf, index],
            "seed": seed,
            "error": completion.error,
            "samples": [[len(sample.tokens), sample.finish, sample.text] for sample in samples],
        }
        tokens = np.array([token for sample in samples for token in sample.tokens], "<i4")
        logprobs = np.array([value for sample in samples for value in sample.logprobs], "<f8")
        self._append(head, tokens.tobytes() + logprobs.tobytes())

    def settled(self, simulations: Sequence[Settled]) -> None:
        """Simulations are about to be backed up together."""
        rows = [
            [
                [one.tree, one.index],
                [[end.value, end.answer, end.verified] for end in one.outcomes],
                [[list(answer.probabilities), answer.error] for answer in one.answers],
            ]
            for one in simulations
        ]
        self._append({"kind": "settled", "simulations": rows})

    def close(self) -> None:
        """Let go of the file; it stays."""
        os.close(self._file)

    def remove(self) -> None:
        """The shard is whole: the journal goes."""
        self.path.unlink()
        self.close()

    def _append(self, head: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        payload = struct.pack("<I", len(text)) + text + body
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        while data:
            data = data[os.write(self._file, data) :]
        if time.monotonic() - self._synced > _SYNC:
            os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _read(self, owner: dict[str, str], keep: bool) -> None:
        data = self.path.read_bytes()
        good, first = 0, True
        for end, head, body in _records(data):
            if first:
                self._check(head, owner)
                first = False
            else:
                self._keep(head, body)
            good = end
            if not keep:
                break
        if good < len(data):
            os.ftruncate(self._file, good)
        if first:
            self._append({"kind": "journal", "format": FORMAT, "owner": owner})

    def _check(self, head: dict[str, Any], owner: dict[str, str]) -> None:
        if head.get("kind") != "journal" or head.get("format") != FORMAT:
            raise InputError(f"{self.path}: not a journal of format {FORMAT}; delete it to search its shard anew")
        other = differing(head["owner"], owner)
        if other:
            raise InputError(
                f"{self.path}: the journal of another search ({', '.join(other)} differ); "
                "give another folder, or delete it to search its shard anew"
            )

    def _keep(self, head: dict[str, Any], body: bytes) -> None:
        if head["kind"] == "samples":
            tree, leaf, index = head["at"]
            one = Sampled(tree, leaf, index, head["seed"], _samples(head["samples"], body), head["error"])
            self.record.entries.append(one)
            self.record.sampled[one.tree, one.index] = one
            return
        together = [
            Settled(tree, index, [Outcome(*end) for end in outcomes], [_answer(*answer) for answer in answers])
            for (tree, index), outcomes, answers in head["simulations"]
        ]
        self.record.entries.append(together)
        self.record.settled.update(((one.tree, one.index), one) for one in together)


def _records(data: bytes) -> Iterator[tuple[int, dict[str, Any], bytes]]:
    """(where it ends, head, body) of every whole record; stops at the first that is not."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(payload) < size or size < 4 or zlib.crc32(payload) != checksum:
            return
        (length,) = struct.unpack_from("<I", payload)
        at += _HEAD.size + size
        yield at, json.loads(payload[4 : 4 + length].decode("utf-8", "surrogatepass")), payload[4 + length :]


def _samples(about: list[list[Any]], body: bytes) -> tuple[Sample, ...]:
    total = sum(length for length, _, _ in about)
    tokens = np.frombuffer(body, "<i4", total).tolist()
    logprobs = np.frombuffer(body, "<f8", total, offset=4 * total).tolist()
    samples, at = [], 0
    for length, finish, text in about:
        samples.append(Sample(tuple(tokens[at : at + length]), text, tuple(logprobs[at : at + length]), finish))
        at += length
    return tuple(samples)


def _answer(probabilities: list[float], error: str | None) -> Completion:
    return Completion(-1, probabilities=tuple(probabilities), error=error)

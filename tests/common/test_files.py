"""Files: whole or not at all, whatever interrupts; one line for what cannot be read; stable digests and seeds."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common import files
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import (
    append_json_line,
    create_json,
    digest,
    file_digest,
    read_json,
    read_json_lines,
    read_table,
    seed_from,
    whole,
    write_json,
    write_table,
)

TABLE = pa.table({"id": ["a", "b"], "tokens": pa.array([[1, 2], []], pa.list_(pa.int32()))})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "a.txt"
    with whole(path) as scratch:
        scratch.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_a_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_failure_midway_leaves_the_old_and_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole(path) as scratch:
            scratch.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_nothing_written_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match="nothing was written"), whole(path):
        pass
    assert path.read_text() == "old"


def test_a_directory_replaces_a_directory_entirely(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    for generation in ("old", "new"):
        with whole(path) as scratch:
            (scratch / "deep").mkdir(parents=True)
            (scratch / generation).write_text(generation)
            (scratch / "deep" / "x").write_text(generation)
    assert names(path) == ["deep", "new"]
    assert (path / "deep" / "x").read_text() == "new"
    assert names(tmp_path) == ["policy"]


def test_a_directory_that_fails_midway_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.mkdir()
    (path / "weights").write_text("old")

    def interrupted() -> None:
        with whole(path) as scratch:
            scratch.mkdir()
            (scratch / "weights").write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (path / "weights").read_text() == "old"
    assert names(tmp_path) == ["policy"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_kill_9_midway_leaves_the_old_and_the_next_attempt_succeeds(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    old = path if kind == "file" else path / "part"
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from mcts_dpo.common.files import whole
        path, kind = Path(sys.argv[1]), sys.argv[2]
        with whole(path) as scratch:
            if kind == "directory":
                scratch.mkdir()
                scratch = scratch / "part"
            scratch.write_text("half of the new")
            print("midway", flush=True)
            time.sleep(600)
    """)
    process = subprocess.Popen([sys.executable, "-c", program, str(path), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "midway\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert old.read_text() == "old"
    with whole(path) as scratch:
        part = scratch if kind == "file" else scratch / "part"
        part.parent.mkdir(exist_ok=True)
        part.write_text("new")
    assert old.read_text() == "new"


def test_json_comes_back_and_its_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    data = {"b": [1, 2.5, None], "a": {"ü": "text\n"}}
    write_json(tmp_path / "a.json", data)
    write_json(tmp_path / "b.json", dict(reversed(data.items())))
    assert read_json(tmp_path / "a.json") == data
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert read_json(path) == {"kept": True}
    assert names(tmp_path) == ["a.json"]


def test_json_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b": }\n')
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value) == f"{path}, line 2: not JSON (Expecting value)"
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "no.json")
    assert str(caught.value) == f"{tmp_path / 'no.json'}: no such file"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    assert read_json_lines(path) == [{"a": 1}, [2]]
    path.write_text('{"a": 1}\n\n{"a"\n')
    with pytest.raises(InputError, match="line 3: not JSON"):
        read_json_lines(path)
    with pytest.raises(InputError, match="no such file"):
        read_json_lines(tmp_path / "no.jsonl")


def test_tables_come_back_and_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_table(tmp_path / name, TABLE)
    assert read_table(tmp_path / "a.parquet").equals(TABLE)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("harm", ["truncated", "not parquet", "empty"])
def test_corrupt_tables_are_told_in_one_line(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "not parquet": b"id,tokens\n" * 9, "empty": b""}[harm])
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: not a readable Parquet file (")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "no.parquet")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_digests_tell_data_apart_but_not_the_order_of_keys(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == (repr_of(a) == repr_of(b))
    if isinstance(a, dict):
        assert digest(dict(reversed(a.items()))) == digest(a)


def repr_of(data: object) -> str:
    if isinstance(data, dict):
        return "{" + ",".join(f"{key!r}:{repr_of(data[key])}" for key in sorted(data)) + "}"
    if isinstance(data, list):
        return "[" + ",".join(map(repr_of, data)) + "]"
    return repr(data)


def test_seeds_are_fixed_for_good() -> None:
    assert digest("a", 1) == "2657442bb4a48d62f780ea60395ef2d203da2669fa41cdc1f4f080b25ddb1a6a"
    assert seed_from("a", 1) == int(digest("a", 1)[:16], 16) >> 1
    assert seed_from("a", 1) != seed_from("a", 2)


@given(st.integers(), st.text())
def test_seeds_are_in_range(number: int, text: str) -> None:
    assert 0 <= seed_from(number, text) < 2**63


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_reader_never_misses_a_directory_that_is_being_replaced(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system can exchange two names in one step; elsewhere only the end is the same."""
    path = tmp_path / "policy"
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    missed: list[int] = []
    watching, stop = threading.Event(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            missed.extend([1] * (not path.exists()))
            watching.set()

    with whole(path) as scratch:
        scratch.mkdir()
    watcher = threading.Thread(target=watch)
    watcher.start()
    watching.wait()
    for generation in range(200):
        with whole(path) as scratch:
            scratch.mkdir()
            (scratch / "generation").write_text(str(generation))
    stop.set()
    watcher.join()
    assert (path / "generation").read_text() == "199"
    assert names(tmp_path) == ["policy"]
    if exchanges and sys.platform == "linux":
        assert not missed


def test_of_several_one_creates_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "budget.json"
    assert create_json(path, {"tokens": 8})
    assert not create_json(path, {"tokens": 9})
    assert read_json(path) == {"tokens": 8}
    assert names(path.parent) == ["budget.json"]


def test_lines_are_added_whole(tmp_path: Path) -> None:
    for number in range(3):
        append_json_line(tmp_path / "log.jsonl", {"number": number})
    assert read_json_lines(tmp_path / "log.jsonl") == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert names(tmp_path) == ["log.jsonl"]


def test_a_file_is_hashed_in_full_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(300_000))
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(files.time, "time", lambda: path.stat().st_ctime + 60)
    first = file_digest(path)
    assert first == hashlib.sha256(bytes(300_000)).hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert file_digest(path) == first
    with path.open("r+b") as handle:  # in the middle, of the same size, with the old time put back
        handle.seek(150_000)
        handle.write(b"!")
    os.utime(path, (1e9, 1e9))
    assert file_digest(path) != first


def test_a_file_that_has_just_changed_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    found = set()
    for turn in range(50):  # many within one tick of the file system's clock
        path.write_bytes(turn.to_bytes(1, "big"))
        found.add(file_digest(path))
    assert len(found) == 50


def test_a_flipped_bit_in_a_table_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(path, pa.table({"q": [index / 7 for index in range(1000)]}))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"table\.parquet: not a readable Parquet file \(.*CRC"):
        read_table(path)

"""Rows of files: what is wrong is one line with file and row, whatever a file holds; bounds hold."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import parse_json, read_json, read_json_lines
from mcts_dpo.data.rows import Record, kind_of, read_rows

GOOD = '{"question": "a", "answer": "1"}\n'


def told(path: Path, **bounds: int) -> list[str]:
    """What is wrong with the rows of a file; every message is one line that names the file and can be printed."""
    found = []
    for row in read_rows(path, **bounds):
        if isinstance(row, InputError):
            message = str(row)
            assert message.startswith(str(path))
            assert message.isprintable()
            message.encode()
            found.append(message.removeprefix(str(path)))
    return found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a\\ud800b"}', ", line 2: \"question\": holds '\\ud800', half of a character"),
        ('{"x": {"y": ["\\udfff"]}}', ", line 2: \"x\": holds '\\udfff', half of a character"),
        ('{"a\\udc00": 1}', ", line 2: \"a\\udc00\": holds '\\udc00', half of a character"),
        ('{"answer": ' + "9" * 4301 + "}", ", line 2: an integer of more than 4300 digits (accepted: fewer, or text)"),
        (
            '{"answer": [-' + "9" * 9999 + "]}",
            ", line 2: an integer of more than 4300 digits (accepted: fewer, or text)",
        ),
        ('{"a": ' + "[" * 101 + "]" * 101 + "}", ', line 2: "a": nested deeper than 100 levels'),
        ('{"a": ' * 101 + "1" + "}" * 101, ', line 2: "a": nested deeper than 100 levels'),
        ("[" * 100_000, ", line 2: nested too deep (accepted: some hundred levels)"),
        ('{"a": ' * 100_000, ", line 2: nested too deep (accepted: some hundred levels)"),
        ("3", ", line 2: not an object of columns but 3"),
        ('"\\ud800"', ', line 2: not an object of columns but "\\ud800"'),
        ('{"a": 1,,}', ", line 2: not JSON (Expecting property name enclosed in double quotes, column 9)"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(GOOD + line + "\n" + GOOD)
    assert told(path) == [message]
    assert sum(isinstance(row, Record) for row in read_rows(path)) == 2


def test_pairs_of_surrogates_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "\\ud83d\\ude00"}\n')
    assert [row.values for row in read_rows(path) if isinstance(row, Record)] == [{"question": "😀"}]
    path.write_bytes(b'{"question": "\xed\xa0\x80"}\n' + GOOD.encode())
    assert told(path) == [", line 1: not UTF-8 text"]


def test_deep_but_readable(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"a": ' + "[" * 90 + "]" * 90 + "}\n")
    assert told(path) == []


def test_lists_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps([{"a": 1}, {"a": "\ud800"}, 3]))
    assert told(path) == [
        ", row 2: \"a\": holds '\\ud800', half of a character",
        ", row 3: not an object of columns but 3",
    ]
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"set\.json: nested too deep"):
        told(path)
    path.write_text("[\n1" + "0" * 5000 + "]")
    with pytest.raises(InputError, match=r"set\.json: an integer of more than 4300 digits"):
        told(path)


def test_marks_at_the_beginning(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.jsonl.gz"):
        data = b"\xef\xbb\xbf" + GOOD.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        (row,) = read_rows(tmp_path / name)
        assert isinstance(row, Record)
        assert row.values["question"] == "a"


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz"])
@pytest.mark.parametrize("filling", [b" ", b"\n", b'{"question": "a"}\n'])
def test_a_compressed_file_holds_no_more_than_the_bound(tmp_path: Path, name: str, filling: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(filling * ((2 << 20) // len(filling)), 1))
    with pytest.raises(
        InputError, match=r"bomb\.\w+\.gz: holds more than max_mib = 1 MiB \(accepted: less, or raise it"
    ):
        list(read_rows(path, 1))
    if not (name == "bomb.csv.gz" and filling.startswith(b"{")):  # which is no CSV
        list(read_rows(path, 2))


def test_a_bomb_takes_little_memory(tmp_path: Path) -> None:
    """8 GiB of blanks in one line, where no more than 6 GiB may be addressed, most of it by libraries."""
    part = gzip.compress(b" " * (64 << 20))
    (tmp_path / "bomb.jsonl.gz").write_bytes(part * 128)
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom mcts_dpo.data import load_problems\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({6 << 30}, {6 << 30}))\n"
        "try:\n    load_problems(Path(sys.argv[1]))\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.jsonl.gz")], capture_output=True, text=True, timeout=1800
    )
    assert "holds more than max_mib = 1024 MiB" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "spoil", [lambda b: b[: len(b) // 2], lambda b: b[:20] + b"\xff" * 8 + b[28:], lambda b: b"no"]
)
def test_damaged_compression_is_one_line(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(GOOD.encode() * 500)))
    with pytest.raises(InputError, match=r"set\.jsonl\.gz: cannot be read") as caught:
        list(read_rows(path))
    assert "\n" not in str(caught.value)


def test_large_cells_spaces_after_commas_and_old_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    long = "x" * 300_000
    path.write_bytes(f'question, answer\n"{long}, and more", "1, 2"\nb, \n'.encode())
    assert [row.values for row in read_rows(path) if isinstance(row, Record)] == [
        {"question": f"{long}, and more", "answer": "1, 2"},
        {"question": "b", "answer": None},
    ]
    path.write_bytes(b"question,answer\ra,1\r\rb,2\r")
    assert [row.values["answer"] for row in read_rows(path) if isinstance(row, Record)] == ["1", "2"]
    path.write_bytes(b'question,answer\r\n"a\r\nb",1\r\n')
    assert [row.values["question"] for row in read_rows(path) if isinstance(row, Record)] == ["a\r\nb"]


def test_csv_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("question,answer\na\nb,2\n")
    assert told(path) == [", line 2: 1 cells, but the header has 2 columns"]
    path.write_text("question,answer, answer\na,1,2\n")
    with pytest.raises(InputError, match=r"set\.csv, line 1: the column 'answer' is there twice"):
        told(path)
    path.write_bytes(b"question,answer\na,1\n\xff,2\n")
    with pytest.raises(InputError, match=r"set\.csv, line 3: not UTF-8 text"):
        told(path)


def test_text_that_is_none_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    raw = pa.array([b"a", b"\xff", b"c"], pa.binary())
    pq.write_table(pa.table({"question": pa.Array.from_buffers(pa.string(), 3, raw.buffers())}), path)
    assert told(path) == [", row 2: not UTF-8 text"]
    assert [row.number for row in read_rows(path) if isinstance(row, Record)] == [1, 3]


def test_kinds_of_files() -> None:
    names = {"a.jsonl": ".jsonl", "a.JSON": ".json", "a.csv.gz": ".csv", "a.parquet": ".parquet", "a.parquet.gz": None}
    assert {name: kind_of(Path(name)) for name in names} == names
    assert kind_of(Path("a.xlsx")) is None


def test_single_documents_are_as_careful(tmp_path: Path) -> None:
    for text, message in (("[" * 100_000, "nested too deep"), ("9" * 5000, "integer of more than"), ("{", "not JSON")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / "a.json")
        with pytest.raises(InputError, match=rf"a\.json, line 1: .*{message}"):
            read_json_lines(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": "\\udc00"}')
    for read in (read_json, read_json_lines):
        with pytest.raises(InputError, match=r"a\.json.*: holds '.udc00', half of a character"):
            read(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff")
    for read in (read_json, read_json_lines):
        with pytest.raises(InputError, match=r"a\.json: not UTF-8 text"):
            read(tmp_path / "a.json")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(InputError, match="here: "):
            parse_json(text, "here")
    else:
        assert parse_json(text, "here") == wanted or wanted != wanted

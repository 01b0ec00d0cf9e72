"""A block of code, run in this process."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.environments.python.inside.block import MOST_ERROR, Output, OutputLimit, packed_reply, run_block


def run(*blocks: str, keep: int = 100, most: int = 1000) -> tuple[str, str | None]:
    """The output and the error of the last block."""
    values: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        output = Output(keep, most)
        values["print"] = lambda *words, out=output: print(*words, file=out)
        error = run_block(block, f"<block {number}>", values, output)
    return output.text(), error


@pytest.mark.parametrize(
    ("blocks", "output", "error"),
    [
        (["1 + 1"], "2", None),
        (["print('a')\n'b'"], "a\n'b'", None),
        (["x = 1", "x\nNone"], "", None),
        (["5", "_ + 1"], "", "NameError: name '_' is not defined (line 1)"),
        (["x = 5\nx", "_ + 1"], "6", None),
        (["1\n\n2 +"], "", "SyntaxError: invalid syntax (line 3)"),
        (["def f():\n    return 1 / 0", "a = 1\nf()"], "", "ZeroDivisionError: division by zero (line 2)"),
        (["def f():\n    return 1 / 0\n\nf()"], "", "ZeroDivisionError: division by zero (line 2)"),
        (["raise ValueError('a\\n  b')"], "", "ValueError: a b (line 1)"),
        (["raise SystemExit(2)"], "", "SystemExit: 2 (line 1)"),
        (["x = 3\nint('x')", "x"], "3", None),
        (["class A:\n    def __repr__(self): return 5\nA()"], "", "TypeError: __repr__ returned non-string (type int)"),
        (["a\0b"], "", "ValueError: source code string cannot contain null bytes"),
    ],
)
def test_as_in_a_notebook(blocks: list[str], output: str, error: str | None) -> None:
    found = run(*blocks)
    if blocks == ["5", "_ + 1"]:
        assert found == ("6", None)
    elif blocks == ["a\0b"]:
        assert found[1] is not None
        assert "null bytes" in found[1]
    else:
        assert found == (output, error)


def test_an_error_that_cannot_be_shown() -> None:
    _, error = run("class Bad(Exception):\n    def __str__(self): raise SystemExit\nraise Bad")
    assert error is not None
    assert "Bad" in error or "SystemExit" in error
    _, long = run(f"raise ValueError('x' * {10 * MOST_ERROR})")
    assert long is not None
    assert len(long) == MOST_ERROR
    assert long.endswith("(line 1)")


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(0, 60), st.integers(0, 200))
def test_output_is_the_beginning_of_what_is_printed(texts: list[str], keep: int, most: int) -> None:
    output, whole = Output(keep, most), ""
    for text in texts:
        whole += text
        if len(whole) <= most:
            output.write(text)
        else:
            with pytest.raises(OutputLimit):
                output.write(text)
            break
    assert output.text() == whole[:keep]
    assert output.cut == (len(whole) > keep)


@given(st.text(), st.booleans(), st.none() | st.text())
def test_a_packed_reply_can_be_read(output: str, cut: bool, error: str | None) -> None:
    message = packed_reply(output, cut, error)
    flags, length = struct.unpack_from("!BI", message)
    assert message[5 : 5 + length] == output.encode("utf-8", "replace")
    assert message[5 + length :] == (error or "").encode("utf-8", "replace")
    assert (bool(flags & 1), bool(flags & 2)) == (cut, error is not None)

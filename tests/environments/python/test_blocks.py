"""Fenced blocks in steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.environments.python.blocks import block_of, open_block


@pytest.mark.parametrize(
    ("step", "code", "is_open"),
    [
        ("Text.", None, False),
        ("```python\nx = 1\n```", "x = 1", False),
        ("So:\n```py\nx = 1\n\ny\n```\n", "x = 1\n\ny", False),
        ("```Python\n1\n```\nand\n```python\n2\n```\n", "2", False),
        ("```python\n1\n```\nand\n```python\n2\n", "1", True),
        ("```python\nx", None, True),
        ("```\nx\n```", None, False),
        ("```text\nx\n```", None, False),
        ("````python\n```\n````", "```", False),
        ("  ```python\n  if 1:\n      2\n  ```", "if 1:\n    2", False),
        ("```python\n```", "", False),
        ("It is `python`.", None, False),
        ("```text\nx\n```python\n3\n```", "3", False),
    ],
)
def test_the_last_complete_block(step: str, code: str | None, is_open: bool) -> None:
    assert (block_of(step), open_block(step)) == (code, is_open)


lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="`\n\r"), max_size=8), max_size=4)


@given(lines, lines, lines)
def test_what_was_fenced_is_found(before: list[str], code: list[str], after: list[str]) -> None:
    step = "\n".join([*before, "```python", *code, "```", *after])
    assert block_of(step) == "\n".join(code)
    assert not open_block(step)
    assert open_block("\n".join([*before, "```python", *code]))


@given(st.text("`python \n~a", max_size=40))
def test_no_text_makes_it_fail(step: str) -> None:
    found = block_of(step)
    assert found is None or isinstance(found, str)
    assert isinstance(open_block(step), bool)

"""Runs the code of one block as a notebook does: what it prints, the value of its last expression, or its error.

What user code may change is read before it runs: builtins are copied, functions are imported by name. Code that breaks
this program all the same breaks only its own path.
"""

from __future__ import annotations

import builtins

# The functions below look here, whatever user code does to the builtins.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]

import ast
from io import TextIOBase
from struct import pack
from sys import exc_info
from traceback import format_exception_only, walk_tb
from typing import Any

MOST_ERROR = 500
"""Characters of an error that are kept."""


class OutputLimit(BaseException):
    """A block printed more than it may. No subclass of Exception: `except Exception` must not keep its loop alive."""

    __module__ = "builtins"  # shown without the name of this module


class Output(TextIOBase):
    """What a block prints: the first `keep` characters. More than `most` end the block."""

    def __init__(self, keep: int, most: int) -> None:
        self.parts: list[str] = []
        self.left, self.allowed, self.most, self.cut = keep, most, most, False

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Keep what fits. Raises OutputLimit."""
        self.add(text)
        self.allowed -= len(text)
        if self.allowed < 0:
            raise OutputLimit(f"more than {self.most} characters printed")
        return len(text)

    def add(self, text: str) -> None:
        """Keep what fits."""
        if self.left and text:
            self.parts.append(text[: self.left])
        self.cut = self.cut or len(text) > self.left
        self.left = max(0, self.left - len(text))

    def text(self) -> str:
        """What was kept."""
        return "".join(self.parts)


def run_block(code: str, name: str, values: dict[str, Any], output: Output) -> str | None:
    """Run code in a namespace, then show its last expression.

    Args:
        code:   of the block.
        name:   the block's own among all blocks of the path, such as "<block 3>".
        values: the namespace; names defined before an error stay defined.
        output: receives the representation of the last expression, if it is one and not None.

    Returns: the error in one line, or None.
    """
    try:
        body = ast.parse(code, name).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), name, "exec", 0, True), values)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval", 0, True), values)
            if value is not None:
                values["_"] = value
                shown = repr(value)
                output.add(shown if not output.parts or output.parts[-1].endswith("\n") else "\n" + shown)
    except BaseException as error:
        return described(error, name)
    return None


def described(error: BaseException, name: str) -> str:
    """An exception in one line, with the line of the block `name` that raised it, or that called what raised it."""
    try:
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == name]
        if isinstance(error, SyntaxError) and error.filename == name:
            lines = [error.lineno or 0]
        texts = format_exception_only(type(error), error)
        text = texts[-1] if isinstance(error, SyntaxError) else "".join(texts)
        place = f" (line {lines[-1]})" if lines else ""
        return " ".join(text.split())[: MOST_ERROR - len(place)] + place
    except BaseException:
        return f"{exc_info()[0]}: the error could not be shown"


def packed_reply(output: str, cut: bool, error: str | None) -> bytes:
    """A reply as a message: flags (1: cut, 2: an error), the length of the output in bytes, the output, the error."""
    text = output.encode("utf-8", "replace")
    flags = (1 if cut else 0) | (0 if error is None else 2)
    return pack("!BI", flags, len(text)) + text + (error or "").encode("utf-8", "replace")

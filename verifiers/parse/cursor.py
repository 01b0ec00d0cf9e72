r"""A cursor over the tokens of one answer. It looks ahead, takes tokens, stops with a reason, and counts depth.

In: cleaned text. Out: the base class of the parser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from verifiers.limits import MAX_DEPTH, TooLarge, Unparsed
from verifiers.parse.lexer import Token, tokens
from verifiers.parse.tree import Node


class Cursor(ABC):
    """The tokens of one answer and the place in them."""

    def __init__(self, text: str, grouped: bool) -> None:
        self.text = text
        self.tokens = tokens(text, grouped)
        self.at = 0
        self.depth = 0
        self.bars = 0

    @property
    def token(self) -> Token:
        """Returns the current token."""
        return self.tokens[self.at]

    def peek(self, ahead: int = 1) -> Token:
        """Returns a later token, or the end token beyond the end."""
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        """Returns the current token and moves on, unless it is the end token."""
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, *values: str) -> bool:
        """Moves past one of these marks, if it is there."""
        if self.token.kind in ("op", "cmd", "sep", "row") and self.token.value in values:
            self.at += 1
            return True
        return False

    def expect(self, *values: str) -> None:
        """Moves past one of these marks, or stops."""
        if not self.accept(*values):
            raise self.stop(f"expected {values[0]}")

    def stop(self, reason: str = "not an answer") -> Unparsed:
        """Returns the error to raise here."""
        token = self.token
        return Unparsed(
            f"{reason} at {self.text[token.start : token.start + 12]!r}"
            if token.kind != "end"
            else f"{reason} at the end"
        )

    def deeper(self) -> None:
        """Count one level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested deeper than {MAX_DEPTH}")

    @abstractmethod
    def listed(self) -> Node:
        """Reads clauses between separators."""

    @abstractmethod
    def sum(self) -> Node:
        """Reads a sum of products."""

    @abstractmethod
    def product(self) -> Node:
        """Reads a product of powers."""

    @abstractmethod
    def power(self) -> Node:
        """Reads a primary with its postfix signs and its exponent."""

    @abstractmethod
    def exponent(self) -> Node:
        """Reads an exponent."""

    @abstractmethod
    def starts_factor(self) -> bool:
        """Whether the current token may begin a factor."""

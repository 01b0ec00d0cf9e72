r"""Reads environments with rows: matrices, systems of equations, functions given by cases.

In: the cursor behind ``\begin``. Out: a matrix, a list of equations that hold together, or a ``cases`` sequence of
(value, condition) pairs.
"""

from __future__ import annotations

from abc import abstractmethod

from verifiers.limits import Unparsed
from verifiers.parse.cursor import Cursor
from verifiers.parse.operators import RELATIONS
from verifiers.parse.tree import Call, Matrix, Node, Relation, Seq, Text

_MATRICES = frozenset(["pmatrix", "bmatrix", "matrix", "array", "smallmatrix", "vmatrix", "Bmatrix", "psmallmatrix"])
_CASES = frozenset(["cases", "dcases", "rcases", "drcases"])
_ALIGNED = frozenset(["aligned", "align", "align*", "gathered", "gather", "gather*", "split", "eqnarray", "eqnarray*"])
IF_WORDS = frozenset(["if", "for", "when", "where", "whenever", "provided"])
OTHERWISE = Text("otherwise")


class Rows(Cursor):
    """The part of the parser that reads environments with rows."""

    @abstractmethod
    def argument_text(self) -> str:
        """Takes the next group in braces, or one token, as raw text."""

    @abstractmethod
    def clause(self) -> Node:
        """Reads one clause: a chain of relations, a set, an expression or words."""

    def environment(self) -> Node:
        """Reads a matrix, a system of equations or a function given by cases."""
        kind = self.argument_text()
        if kind in _CASES or kind in _ALIGNED:
            return self.system(kind)
        if kind not in _MATRICES:
            raise self.stop(f"environment {kind[:12]!r}")
        if kind == "array" and self.token.value == "{":
            self.argument_text()
        rows = self.matrix_rows(kind)
        if all(len(row) == 1 and isinstance(row[0], Relation) for row in rows):
            return Seq("list", tuple(row[0] for row in rows), "and")
        if not rows or len({len(row) for row in rows}) != 1:
            raise self.stop("rows of different lengths")
        if any(isinstance(cell, (Relation, Text)) for row in rows for cell in row):
            raise self.stop("a matrix row")
        matrix = Matrix(tuple(rows))
        return Call("det", (matrix,)) if kind == "vmatrix" else matrix

    def matrix_rows(self, kind: str) -> list[tuple[Node, ...]]:
        """Reads the rows up to the end of the environment."""
        rows: list[tuple[Node, ...]] = []
        cells: list[Node] = []
        while not self.ended(kind):
            if self.token.kind == "row":
                self.take()
                rows += [tuple(cells)] if cells else []
                cells = []
            elif self.accept("&", "\\hline"):
                continue
            else:
                cells.append(self.clause())
                if not (self.token.kind == "row" or self.token.value in ("&", "\\end")):
                    raise self.stop("a matrix row")
        return [*rows, tuple(cells)] if cells else rows

    def ended(self, kind: str) -> bool:
        r"""Move past ``\end`` of the environment, if it is there."""
        if not (self.token.kind == "cmd" and self.token.value == "\\end"):
            return False
        self.take()
        if self.argument_text() != kind:
            raise self.stop("environments do not match")
        return True

    # ------------------------------------------------------------------ systems and cases

    def system(self, kind: str) -> Node:
        """Reads equations that hold together, or values with their conditions."""
        self.deeper()
        self.drop_alignment(kind in _ALIGNED)
        rows: list[Node] = []
        while not self.ended(kind):
            if self.token.kind == "row":
                self.take()
            else:
                rows.append(self.system_row())
        self.depth -= 1
        pairs = [row for row in rows if isinstance(row, Seq) and row.kind == "case"]
        if not rows or (pairs and len(pairs) != len(rows)):
            raise self.stop("rows of different kinds")
        if pairs:
            return Seq("cases", tuple(pairs))
        items = [
            item for row in rows for item in (row.items if isinstance(row, Seq) and row.kind == "list" else (row,))
        ]
        return items[0] if len(items) == 1 else Seq("list", tuple(items), "and")

    def system_row(self) -> Node:
        """Reads an equation, or a value and its condition."""
        value = self.listed()
        if self.accept("&") or self.token.kind == "text":
            condition = self.condition()
        elif isinstance(value, Seq) and value.kind == "list" and len(value.items) == 2 and _is_case(value):
            value, condition = value.items
        else:
            condition = None
        if not (self.token.kind == "row" or self.token.value == "\\end"):
            raise self.stop("a row")
        return value if condition is None else Seq("case", (value, condition))

    def condition(self) -> Node:
        """Reads the condition after ``if``: relations or words."""
        start = self.at
        words = self.token.value.lower().strip(" .,").split() if self.token.kind == "text" else []
        if words and words[0] in IF_WORDS and len(words) == 1:
            self.take()
        elif words and words[0] in ("otherwise", "else", "elsewhere"):
            self.take()
            return OTHERWISE
        try:
            condition = self.listed()
        except Unparsed:
            condition = None
        return condition if condition is not None and self.row_ends() else self.raw_condition(start)

    def row_ends(self) -> bool:
        """Whether the row ends here."""
        return self.token.kind == "row" or self.token.value == "\\end"

    def raw_condition(self, start: int) -> Node:
        """Returns the condition as it is written, without its first ``if``."""
        self.at = start
        while not self.row_ends():
            if self.take().kind == "end":
                raise self.stop("an environment is not closed")
        words = [token.value for token in self.tokens[start : self.at]]
        return Text(" ".join(words[1:] if words and words[0].lower() in IF_WORDS else words))

    def drop_alignment(self, everywhere: bool) -> None:
        r"""Take the ``&`` beside a relation sign, or all of them, out of the tokens up to ``\end``."""
        end = next((i for i in range(self.at, len(self.tokens)) if self.tokens[i].value == "\\end"), len(self.tokens))
        inside = self.tokens[self.at : end]
        related = [token.value in RELATIONS for token in inside] + [False]
        kept = [
            token
            for index, token in enumerate(inside)
            if token.value != "&" or not (everywhere or related[index + 1] or (index and related[index - 1]))
        ]
        self.tokens[self.at : end] = kept


def _is_case(value: Seq) -> bool:
    """Whether a row without ``&`` is a value, a comma and a condition."""
    first, second = value.items
    return not isinstance(first, Relation) and isinstance(second, (Relation, Text))

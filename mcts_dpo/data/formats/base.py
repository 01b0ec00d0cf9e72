"""A row of a data set, and what every layout needs to make a `Problem` of it: cells by role, with exact errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown
from mcts_dpo.common.settings import nearest
from mcts_dpo.data.answers import answer_text, scalar_text
from mcts_dpo.data.choices import Choices, letter_of, of_value
from mcts_dpo.data.problem import Problem, Role

Names = tuple[str, ...]
"""Names of columns. The first that a row has is taken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set, and how the user reads the set.

    where:        the place for error messages: "FILE, line 3".
    values:       the cells by column.
    default_id:   the problem's id if the row has none of its own.
    source:       the data set, as the user named it.
    columns:      the column of a role where the user set one (`train.columns`). It replaces the layout's names.
    choice_index: the number of the first choice, 0 or 1 (`train.choice_index`).
    """

    where: str
    values: Mapping[str, Any]
    default_id: str
    source: str = ""
    columns: Mapping[Role, str] = field(default_factory=dict)
    choice_index: int = 0

    def problem(
        self,
        *,
        question: Names = ("question",),
        answer: Names = (),
        solution: Names = (),
        choices: Names | Choices = (),
        id: Names = ("id",),
        required: tuple[Role, ...] = ("question",),
    ) -> Problem:
        """The problem of this row, read from the named columns.

        question, answer, solution, choices, id: the columns of each role; empty: the layout has none. `choices` may
        also be choices that the layout has read itself.
        required: the roles for which a row must have a column. Roles that the user set are required too.

        Raises InputError, naming the place, for a missing column, a question that is missing, empty or no text, a
        solution that is no text, and for answers and choices in no known form.
        """
        listed = (
            choices if isinstance(choices, Choices) else of_value(self.cell("choices", choices, required), self.where)
        )
        given = self.cell("answer", answer, required)
        right = letter_of(given, listed, self.choice_index, self.where) if listed.texts else None
        return Problem(
            id=scalar_text(self.cell("id", id, required), self.where, "id") or self.default_id,
            question=self._question(self.cell("question", question, required)),
            answer=right if listed.texts else answer_text(given, self.where),
            solution=self._solution(self.cell("solution", solution, required)),
            choices=listed.texts,
            source=self.source,
        )

    def cell(self, role: Role, names: Names, required: tuple[Role, ...] = ()) -> Any:
        """The value of the first column of `names` that the row has; None if it has none.

        Raises InputError if it has none and the role is required or set by the user.
        """
        names = (self.columns[role],) if role in self.columns else names
        for name in names:
            if name in self.values:
                return self.values[name]
        if names and (role in required or role in self.columns):
            raise InputError(f"{self.where}: {self._no_column(role, names[0])}")
        return None

    def _question(self, question: Any) -> str:
        if question is None:
            raise InputError(f"{self.where}: the question is missing")
        if not isinstance(question, str):
            raise InputError(f"{self.where}: the question is {shown(question)}, not text")
        if not question.strip():
            raise InputError(f"{self.where}: the question is empty")
        return question.strip()

    def _solution(self, solution: Any) -> str | None:
        if isinstance(solution, str):
            return solution
        if solution is None or solution != solution:  # NaN
            return None
        raise InputError(f"{self.where}: the solution is {shown(solution)}, not text")

    def _no_column(self, role: Role, name: str) -> str:
        there = ", ".join(map(repr, self.values)) or "none"
        close = nearest(name, [str(key) for key in self.values])
        hint = f"; did you mean {close!r}?" if close else ""
        how = "" if role in self.columns else f"; name it with columns.{role}"
        return f"no column {name!r} for the {role}{hint} (there are {there}{how})"


Reader = Callable[[Row], Problem]
"""The function of a layout: a row in, its problem out. It raises InputError, naming `row.where`, for a bad row."""
Detect = Callable[[Mapping[str, Any]], bool]
"""Whether a data set has this layout, told from the cells of its first row."""

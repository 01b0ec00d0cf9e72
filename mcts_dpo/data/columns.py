"""From a row to a problem: which column means what, by the layout of the data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown
from mcts_dpo.common.settings import nearest
from mcts_dpo.data.answers import answer_text, boxed_answer, scalar_text
from mcts_dpo.data.choices import Choices, choice_columns, letter_of, of_columns, of_value
from mcts_dpo.data.problem import Format, Problem, ProblemSettings, Role
from mcts_dpo.data.rows import Record

_COLUMNS: dict[Format, dict[Role, tuple[str, ...]]] = {
    # The first name that is there is taken; a role whose names are missing is an error if it is required.
    "gsm8k": {"question": ("question",), "answer": ("answer",), "id": ("id",)},
    "math": {
        "question": ("problem", "question"),
        "solution": ("solution",),
        "answer": ("answer",),
        "id": ("id", "unique_id"),
    },
    "mawps": {"question": ("question",), "answer": ("answer",), "id": ("id",)},
    "choice": {
        "question": ("question",),
        "choices": ("choices", "options"),
        "answer": ("answerKey", "answer", "answer_idx", "answer_index", "correct", "label"),
        "id": ("id",),
    },
    "columns": {
        "question": ("question",),
        "answer": ("answer", "answerKey"),
        "solution": ("solution",),
        "choices": ("choices",),
        "id": ("id",),
    },
}
_REQUIRED: dict[Format, tuple[Role, ...]] = {
    "gsm8k": ("question", "answer"),
    "math": ("question",),
    "mawps": ("question", "answer"),
    "choice": ("question", "choices"),
    "columns": ("question",),
}


def reader(settings: ProblemSettings, first: Record) -> Callable[[Record, str], Problem]:
    """The function from a row and the id to derive to a Problem. first: the first row, which shows the layout."""
    layout = _detect(settings, first) if settings.format == "auto" else settings.format
    return _Reader(settings, layout, first).problem


def _detect(settings: ProblemSettings, first: Record) -> Format:
    there, answer = set(first.values), first.values.get("answer")
    if settings.columns:
        return "columns"
    if "question" in there and (there & {"choices", "options"} or choice_columns(there)):
        return "choice"
    if "problem" in there and there & {"solution", "answer"}:
        return "math"
    if {"question", "answer"} <= there and isinstance(answer, str) and "####" in answer:
        return "gsm8k"
    return "columns"


class _Reader:
    """How the rows of one data set are read.

    names:    for each role the columns that may have it. required: roles that every row must have a column for.
    lettered: the columns that hold one choice each, if that is how the choices are given.
    """

    def __init__(self, settings: ProblemSettings, layout: Format, first: Record) -> None:
        self.settings, self.layout = settings, layout
        self.names = {**_COLUMNS[layout], **{role: (name,) for role, name in settings.columns.items()}}
        self.required = {*_REQUIRED[layout], *settings.columns}
        own = layout == "choice" and not any(name in first.values for name in self.names["choices"])
        self.lettered = choice_columns(first.values) if own else []

    def problem(self, row: Record, derived: str) -> Problem:
        """The problem of a row. derived: its id unless it has one of its own."""
        choices = self._choices(row)
        answer, solution = self._answer(row, choices)
        return Problem(
            id=scalar_text(self._take(row, "id"), row.where, "id") or derived,
            question=self._question(row),
            answer=answer,
            solution=solution,
            choices=choices.texts,
            source=self.settings.source,
        )

    def _take(self, row: Record, role: Role) -> Any:
        for name in self.names.get(role, ()):
            if name in row.values:
                return row.values[name]
        if role in self.required:
            raise InputError(f"{row.where}: {_no_column(row, role, self.names[role][0], self.settings)}")
        return None

    def _question(self, row: Record) -> str:
        question = self._take(row, "question")
        if question is None:
            raise InputError(f"{row.where}: the question is missing")
        if not isinstance(question, str):
            raise InputError(f"{row.where}: the question is {shown(question)}, not text")
        if not question.strip():
            raise InputError(f"{row.where}: the question is empty")
        return question.strip()

    def _choices(self, row: Record) -> Choices:
        if self.lettered:
            return of_columns([row.values.get(name) for name in self.lettered], row.where)
        return of_value(self._take(row, "choices"), row.where)

    def _answer(self, row: Record, choices: Choices) -> tuple[str | None, str | None]:
        """The reference answer, and the reference solution."""
        given, solution = self._take(row, "answer"), self._take(row, "solution")
        if solution is not None and solution == solution and not isinstance(solution, str):
            raise InputError(f"{row.where}: the solution is {shown(solution)}, not text")
        solution = solution if isinstance(solution, str) else None
        if choices.texts:
            return letter_of(given, choices, self.settings.choice_index, row.where), solution
        answer = answer_text(given, row.where)
        if self.layout == "gsm8k" and answer is not None and "####" in answer:
            rationale, _, answer = answer.rpartition("####")
            return answer.strip(), rationale.strip()
        if self.layout == "math" and answer is None and solution is not None:
            answer = boxed_answer(solution) or ""
        return answer, solution


def _no_column(row: Record, role: Role, name: str, settings: ProblemSettings) -> str:
    there = ", ".join(map(repr, row.values)) or "none"
    close = nearest(name, [str(key) for key in row.values])
    hint = f"; did you mean {close!r}?" if close else ""
    how = "" if role in settings.columns else f"; name it with columns.{role}"
    return f"no column {name!r} for the {role}{hint} (there are {there}{how})"

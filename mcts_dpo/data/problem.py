"""What a problem is, and the settings that say which problems. Knows no files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, field_validator

from mcts_dpo.common.settings import Settings, nearest
from mcts_dpo.data.rows import MAX_MIB
from verifiers import verifier_names

Role = Literal["question", "answer", "solution", "id", "choices"]
Format = Literal["auto", "gsm8k", "math", "mawps", "choice", "columns"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    id:       unique in its set.
    question: the text, never empty.
    answer:   the reference answer as text; of several parts "part, part"; for multiple choice its letter; "" if the
              data set has one that could not be found (no \\boxed in a MATH solution); None if it has none, or it is
              withheld.
    solution: a reference solution, if there is one.
    choices:  of a multiple-choice question, in the order of the letters A, B, C, …; otherwise empty.
    source:   the data set, as it was asked for.
    verifier: the name of the verifier that compares answers (`verifiers.get_verifier`); "": as mathematics, or as
              letters where there are choices.
    """

    id: str
    question: str
    answer: str | None = None
    solution: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    verifier: str = ""

    def without_answer(self) -> Problem:
        """The problem as a solving search sees it: no reference answer, no reference solution."""
        return replace(self, answer=None, solution=None)


class ProblemSettings(Settings):
    """Which problems.

    source:       a file, a folder, or a name on the Hugging Face hub.
    format:       the layout of a row; "auto" tells it by the names of the columns.
    split:        of a folder or hub data set ("train", "test"); may be left out if there is but one.
    subset:       of a hub data set (its configuration, e.g. "main" for openai/gsm8k).
    columns:      where a data set names its columns otherwise: {question: prompt, answer: target}.
    choice_index: what the first choice is called where a data set gives the right one by its place: 0 or 1.
    shuffle_seed: shuffles the problems (before offset and limit); None keeps the order of the file.
    offset:       problems to skip.
    limit:        problems to keep at most.
    max_mib:      how much text a compressed file may hold, in MiB; one that holds more is refused.
    verifier:     the name of the verifier that compares answers; null: as mathematics, or as letters where there are
                  choices. (A vote still takes answers for one class that are equal as mathematics.)
    """

    source: str = Field(min_length=1)
    format: Format = "auto"
    split: str | None = None
    subset: str | None = None
    columns: dict[Role, str] = Field(default_factory=dict)
    choice_index: Literal[0, 1] = 0
    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0)
    shuffle_seed: int | None = None
    max_mib: int = Field(default=MAX_MIB, ge=1)
    verifier: str | None = None

    @field_validator("verifier")
    @classmethod
    def _known_verifier(cls, name: str | None) -> str | None:
        if name is not None and name not in verifier_names():
            close = nearest(name, verifier_names())
            hint = f"; did you mean {close!r}?" if close else ""
            raise ValueError(f"is not a verifier{hint} (accepted: {', '.join(verifier_names())})")
        return name

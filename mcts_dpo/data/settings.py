"""The settings that say which problems are read, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from mcts_dpo.common.settings import Settings, nearest
from mcts_dpo.data.formats.registry import known_format
from mcts_dpo.data.problem import Role
from mcts_dpo.data.rows import MAX_MIB
from verifiers import verifier_names


class ProblemSettings(Settings):
    """Which problems, and how their files are read.

    source:       a file, a folder, or a name on the Hugging Face hub.
    format:       the layout of a row (`mcts_dpo/data/formats/`); "auto" recognises it by the first row. A module given
                  by `--with` can register more.
    split:        of a folder or hub data set ("train", "test"); not needed if there is only one.
    subset:       of a hub data set (its configuration, e.g. "main" for openai/gsm8k).
    columns:      the columns to read where a data set has names of its own: {question: prompt, answer: target}.
    choice_index: the number of the first choice, where a data set gives the right choice by number: 0 or 1.
    shuffle_seed: shuffles the problems (before offset and limit); None keeps the order of the file.
    offset:       problems to skip.
    limit:        problems to keep at most.
    max_mib:      how much text a compressed file may hold, in MiB; a larger file is refused.
    verifier:     the name of the verifier that compares answers; null: as mathematics, or as letters where there are
                  choices. (A vote still puts answers that are equal as mathematics into one class.)
    """

    source: str = Field(min_length=1)
    format: Annotated[
        str,
        AfterValidator(known_format),
        "'auto', 'gsm8k', 'math', 'mawps', 'choice', 'columns' or a registered format",
    ] = "auto"
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

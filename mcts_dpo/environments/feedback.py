"""Self-correction: where the policy states an answer, it is asked to check its solution, once or several times.

The critique is a fixed text. It does not depend on whether the answer is right, so a solving search can use it. The
reward `correction` says what a correction is worth.

Source: Kumar et al. 2024, Training Language Models to Self-Correct via Reinforcement Learning, arXiv 2409.12917, for
corrections as turns of one chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mcts_dpo.data import Problem
from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Role, Turn
from mcts_dpo.environments.registry import register_environment
from verifiers import STYLES, states_answer


def _style(style: str) -> str:
    if style not in STYLES:
        raise ValueError(f"is not a style of answers (accepted: {', '.join(STYLES)})")
    return style


class FeedbackSettings(EnvironmentSettings):
    """At a stated answer a fixed critique is put to the policy.

    critique:     the text.
    rounds:       how often it is put.
    role:         whose turn it is (see `Reply`).
    answer_style: how the policy states an answer (see `prompt.answer_style`).
    """

    kind: Literal["feedback"] = "feedback"
    critique: str = Field(default="Check the solution; if there is a mistake, correct it.", min_length=1)
    rounds: int = Field(default=1, ge=1)
    role: Role = "user"
    answer_style: Annotated[str, AfterValidator(_style), "a style of answers"] = "math"


def _make(settings: FeedbackSettings) -> Environment:
    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        put = sum(turn.reply is not None for turn in path)
        before = "".join(turn.step if turn.reply is None else f"{turn.step}\n" for turn in path[:-1])
        stated = states_answer(path[-1].step, settings.answer_style, before=before)
        return Reply(settings.critique, role=settings.role) if stated and put < settings.rounds else None

    return Environment(settings, reply)


register_environment(FeedbackSettings, _make)

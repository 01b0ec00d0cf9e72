"""The interface of an environment: it may answer a step with a text that the policy reads before its next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mcts_dpo.data import Problem


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment answers.

    text:   the policy reads it next. Its tokens are never trained on, and never counted as generated.
    done:   the solution ends here.
    reward: what the environment itself gives for the step.
    """

    text: str
    done: bool = False
    reward: float = 0.0


class Environment(Protocol):
    """Answers steps."""

    def reply(self, problem: Problem, path: str) -> Reply | None:
        """The answer to the last step of `path`, the solution so far as text; None if there is none."""
        ...

"""The interface of an environment: it may reply to a step with a text that the policy reads before its next step.

An environment is made once per process from its settings, and it replies to paths of all problems. It gets the whole
path each time, so a search may ask it in any order, and ask again after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mcts_dpo.common.settings import Settings
from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings

Role = Literal["inline", "user", "tool"]
"""Where a reply stands: in the policy's own turn, or in a turn of a user or of a tool."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment replies to a step.

    text:   the policy reads it next. Its tokens are never trained on, and never counted as generated.
    done:   the solution ends here.
    reward: what the environment itself gives for the step, in [-1, 1] (see the reward `environment`).
    answer: with `done`: the answer that the environment reads off the end, such as "won"; None leaves it to the text.
    role:   where the text stands. "inline": it follows the step as it is. "user", "tool": it is a turn of the chat
            after the policy's, written by the chat template; in plain style it stands on lines of its own.
    """

    text: str
    done: bool = False
    reward: float = 0.0
    role: Role = "inline"
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a path. step: the policy's text. reply: the environment's text after it; None if it said nothing."""

    step: str
    reply: str | None = None


class EnvironmentSettings(Settings):
    """What every environment has. Its own settings are a subclass in its file, where `kind` has a default.

    kind:        the environment's name.
    instruction: what the policy is told about the environment, after the question; "" tells it nothing.
    seconds:     a reply that takes longer fails its path.
    workers:     how many replies are computed at a time.
    """

    kind: str
    instruction: str = ""
    seconds: float = Field(default=60.0, gt=0.0, allow_inf_nan=False)
    workers: int = Field(default=4, ge=1, le=256)

    def schemas(self) -> tuple[dict[str, Any], ...]:
        """JSON schemas of functions that the chat template tells the policy about."""
        return ()

    def told(self) -> str:
        """What the policy is told after the question."""
        return self.instruction

    def __hash__(self) -> int:
        """Of the values as text: they may hold lists and mappings."""
        return hash(self.model_dump_json())

    def files(self) -> list[Path]:
        """Files that the replies depend on: a search does not continue after one of them has changed."""
        return []


def _nothing_open(step: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """What replies to steps.

    reply:      (problem, path) → the reply to the path's last step; None if there is none. It is called in threads. It
                may raise: then the path fails with the error's text. A search that solves hides the problem's answer.
    stops:      texts that end a sample, so that the environment can reply to it. Every step is shown to the
                environment anyway; these end whole solutions that are sampled at once.
    unfinished: whether a step's text has begun something that it has not ended, such as a block of code. The step then
                continues.
    close:      frees what the environment holds.
    """

    settings: EnvironmentSettings
    reply: Callable[[Problem, Sequence[Turn]], Reply | None]
    stops: tuple[str, ...] = ()
    unfinished: Callable[[str], bool] = _nothing_open
    close: Callable[[], None] = lambda: None


def instructed(prompt: PromptSettings, environment: EnvironmentSettings) -> PromptSettings:
    """The prompt with what the policy is told about the environment, after the question and by the chat template."""
    told = environment.told()
    template = prompt.template.replace("{question}", f"{{question}}\n\n{told}") if told else prompt.template
    return prompt.model_copy(update={"template": template, "tools": (*prompt.tools, *environment.schemas())})

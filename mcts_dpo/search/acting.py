"""Steps that an environment replies to: where the replies stand in a sample, and what its steps are.

In: the tokens of a sample, and the replies in it. Out: its steps, each with the reply that follows it. drawing.py asks
for the replies, and expansion.py makes nodes of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.data import Problem
from mcts_dpo.environments.base import Environment, Reply, Turn
from mcts_dpo.models.decoding import prefixes
from mcts_dpo.models.prompts import PromptSettings, split_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Acting:
    """An environment, and the problem that its replies are about."""

    environment: Environment
    problem: Problem


@dataclass(frozen=True, slots=True)
class Written:
    """A reply in a sample: tokens [start, end) of the sample are the environment's."""

    start: int
    end: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Acted:
    """What an environment did in one sample.

    replies: in order. over: True: it ended the solution. False: it replied to the last step, so the solution continues.
    None: it said nothing at the end. failed: why it gave no reply to the last step; "" if it did not fail.
    """

    replies: tuple[Written, ...] = ()
    over: bool | None = None
    failed: str = ""

    @property
    def answer(self) -> str | None:
        """The answer that the environment has read off the end; None if it leaves that to the text."""
        return self.replies[-1].reply.answer if self.over and self.replies else None


@dataclass(frozen=True, slots=True)
class Part:
    """One step of a sample, and the reply to it: tokens [start, end), of which [own, end) are the environment's.

    text: the policy's own text. reply: None without one.
    """

    start: int
    own: int
    end: int
    text: str
    reply: Reply | None

    @property
    def turn(self) -> Turn:
        """The step as an environment sees it."""
        return Turn(self.text, None if self.reply is None else shown(self.reply))


def shown(reply: Reply) -> str:
    """A reply as readers of a solution's text see it: a turn of its own stands on lines of its own."""
    return reply.text if reply.role == "inline" else f"\n{reply.text.strip()}\n"


def parts(
    tokens: Sequence[int],
    before: Sequence[int],
    replies: Sequence[Written],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSettings,
    environment: Environment | None,
    *,
    whole: bool = True,
) -> list[Part]:
    """Cut a sample into steps, each with the reply that follows it.

    before: the solution's tokens before the sample. whole: False: what stands before a reply is one step.

    A step continues while it has begun something that is not ended (`Environment.unfinished`).
    """
    text = prefixes(tokenizer, (*before, *tokens))
    found: list[Part] = []
    start = 0
    for stop, end, reply in [*((one.start, one.end, one.reply) for one in replies), (len(tokens), len(tokens), None)]:
        ends = split_steps(tokens[start:stop], tokenizer, prompt) if whole else [stop - start][: stop - start]
        first = start
        for own in (start + offset for offset in ends):
            step = text(len(before) + own)[len(text(len(before) + first)) :]
            if own < stop and environment is not None and environment.unfinished(step):
                continue
            found.append(Part(first, own, own, step, None))
            first = own
        if reply is not None and found:
            last = found.pop()
            found.append(Part(last.start, last.own, end, last.text, reply))
        start = end
    return found


def written_text(steps: Sequence[Part]) -> str:
    """The policy's own text, with a line break for each reply: an answer counts only where the policy states it."""
    return "".join(step.text if step.reply is None else f"{step.text}\n" for step in steps)


def shown_text(steps: Sequence[Part]) -> str:
    """The text with the replies."""
    return "".join(step.text if step.reply is None else step.text + shown(step.reply) for step in steps)

"""The interface of a reward: settings in, a function from a batch of solution paths to scores out.

A reward is made once per problem (`RewardContext`). It then scores batches of paths of that problem's tree. Its scores
are raw: `combine` weighs them. A reward waits for nobody else: it is a coroutine that yields its own work
(`engines/coroutine.py`), so trees that do not wait for a slow reward continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mcts_dpo.common.settings import Settings
from mcts_dpo.data import Problem
from mcts_dpo.engines.coroutine import Coroutine, call
from mcts_dpo.models.prompts import PromptSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RewardSettings(Settings):
    """What every reward has. A reward's own settings are a subclass in its file, where `kind` has a default.

    kind:   the reward's name.
    weight: w ≥ 0 of its scores in R; 0 asks for no scores.
    at:     "terminal": it scores whole solutions only; "all": every new step.
    """

    kind: str
    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    at: Literal["terminal", "all"] = "terminal"

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """The least and the greatest score."""
    judges: ClassVar[bool] = True
    """Whether it can tell good solutions from bad ones without the reference answer, as a solving search must."""
    needs_reference: ClassVar[bool] = False
    """Whether it has scores only where the reference answer is known."""

    def files(self) -> list[Path]:
        """Models that the scores depend on: a search does not continue after one of them has changed."""
        return []


@dataclass(frozen=True, slots=True)
class RewardContext:
    """What a reward may know when it is made, once per problem.

    problem: without its reference answer in a solving search. tokenizer: the policy's. seed: `search.seed`.
    """

    problem: Problem
    tokenizer: PreTrainedTokenizerBase
    prompt: PromptSettings
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SolutionPath:
    """A solution up to one of its steps: what a reward scores.

    prompt:   token ids of the question as the policy reads it.
    tokens:   token ids of the solution so far; text: the same as text, with `PromptSettings.prefill`.
    terminal: the solution ends here. closed: its last token is an end-of-sequence token.
    steps:    the texts of the steps with the replies to them; joined, and without `prefill`, they are `text`.
    ends:     for each step, the index in `tokens` after its last token.
    outcome:  of a verified end: +1 right, -1 wrong, 0 not known; 0 elsewhere.
    answer:   of an end: the final answer as extracted; None without one.
    replies:  for each step, the end of its text that an environment wrote; () or "" without one.
    given:    the sum of what the environment gave for the steps (`environments.Reply.reward`).
    """

    prompt: tuple[int, ...]
    tokens: Sequence[int]
    text: str
    steps: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    terminal: bool = False
    closed: bool = False
    outcome: int = 0
    answer: str | None = None
    replies: tuple[str, ...] = ()
    given: float = 0.0

    @property
    def written(self) -> Sequence[int]:
        """The tokens without the end-of-sequence token of a closed solution, so that text can follow."""
        return self.tokens[:-1] if self.closed else self.tokens


Scores = Callable[[Sequence[SolutionPath]], Coroutine[list[float]]]
"""From a batch of paths to one raw score each; nan where the reward has nothing to say.

A search counts the scores that it misses in `TreeInfo.unscored`: a judge that fails gives nan, never 0. Infinite scores
are taken for unknown ones. A reward may also raise `RequestError`. Then the tree fails with that reason."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward of one problem.

    cost: what one score counts for in a budget of generated tokens, ≥ 0.
    room: tokens of the engine's context that must be left after a solution, ≥ 0.
    anew: makes the reward again, for another search of the same problem. None: the reward remembers no paths.
    """

    settings: RewardSettings
    scores: Scores
    cost: int = 0
    room: int = 0
    anew: Callable[[], Reward] | None = None


Maker = Callable[[Any, RewardContext], Reward]
"""(settings, context) → reward. Raises InputError for settings that cannot be used."""


def pure(function: Callable[[Sequence[SolutionPath]], list[float]]) -> Scores:
    """Scores that are computed at once."""

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        yield from ()
        return function(paths)

    return scores


def batched(
    function: Callable[[Sequence[Any]], Iterable[float]], item: Callable[[SolutionPath], Any] = lambda path: path
) -> Scores:
    """Scores that take long: `function` runs in a thread, with the items of all trees that wait for it together.

    function: items → one score each. Share one function among problems, so that their paths become one batch.
    item:     what the function needs of a path.
    """

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        found = yield from call(function, [item(path) for path in paths])
        return [float(score) for score in found]

    return scores


def remote(
    function: Callable[[Sequence[Any]], Future[list[float]]], item: Callable[[SolutionPath], Any] = lambda path: path
) -> Scores:
    """Scores that come from elsewhere, a server say: no path waits for those of another tree.

    function: starts the scoring of some items; returns a future of one score each. item: what it needs of a path.
    """

    def scores(paths: Sequence[SolutionPath]) -> Coroutine[list[float]]:
        found = yield from call(function, [item(path) for path in paths], starts=True)
        return [float(score) for score in found]

    return scores

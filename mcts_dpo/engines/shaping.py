"""The sampling settings beside temperature and top_p: top-k, min-p, and penalties for tokens that were there before.

In: anything with fields of these names (search settings, a `Request`). Out: a `Shape`, and the check whether an engine
has what is set.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from mcts_dpo.common.errors import InputError


class Shape(NamedTuple):
    """What changes the distribution before a token is drawn. The defaults change nothing.

    They apply in vLLM's order: repetition penalty, presence penalty, temperature, min_p, top_k, and top_p over what is
    left. The log-probabilities of samples stay those of the untempered policy, without any of these.

    top_k:              only the k most likely tokens, and those exactly as likely as the last of them; 0 keeps all.
    min_p:              only tokens at least `min_p` times as likely as the most likely one, after temperature, in
                        [0, 1]; 0 keeps all. Source: Nguyen et al. 2024, arXiv 2407.01082.
    repetition_penalty: > 0; the logit of each token that is in the prompt or the solution so far is divided by it if
                        positive, and multiplied by it if not; 1 changes nothing. Source: Keskar et al. 2019 (CTRL),
                        arXiv 1909.05858, section 4.1.
    presence_penalty:   in [−2, 2]; it is subtracted from the logit of each token that is in the solution so far, but
                        not for the prompt; 0 changes nothing. Source: OpenAI's API.
    """

    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0

    @property
    def penalises(self) -> bool:
        """Whether it depends on the tokens before."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0

    def settings_on(self) -> dict[str, float]:
        """The settings that change anything, by name."""
        return {name: value for name, value in self._asdict().items() if value != getattr(PLAIN, name)}


PLAIN = Shape()
"""The shape that changes nothing."""
SHAPING = frozenset(Shape._fields)
"""The names of these settings."""


def shape_of(source: Any) -> Shape:
    """The shape that an object's fields of these names give."""
    return Shape(source.top_k, source.min_p, source.repetition_penalty, source.presence_penalty)


def refuse_shape(source: Any, has: Collection[str], kind: str) -> None:
    """Raise InputError for a search setting that the engine does not have.

    source: search settings. has: names of the settings that the engine has. kind: name of the engine.
    """
    for name, value in shape_of(source).settings_on().items():
        if name not in has:
            raise InputError(
                f"search.{name}: {value}, but the engine {kind!r} has no {name}; accepted: {getattr(PLAIN, name)}"
            )


def wrong_shape(shape: Shape) -> str | None:
    """Why a request cannot have this shape, naming field, value and what is accepted; None if it can."""
    checks = (
        ("top_k", shape.top_k >= 0, "0 or more"),
        ("min_p", 0 <= shape.min_p <= 1, "0 to 1"),
        ("repetition_penalty", 0 < shape.repetition_penalty < float("inf"), "above 0"),
        ("presence_penalty", -2 <= shape.presence_penalty <= 2, "-2 to 2"),
    )
    wrong = next(((name, accepted) for name, good, accepted in checks if not good), None)
    return wrong and f"{wrong[0]}: {getattr(shape, wrong[0])} (accepted: {wrong[1]})"

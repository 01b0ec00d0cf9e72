"""What an objective is: its table, its settings, and a function from the log-probabilities of steps to losses.

In: the steps of one forward pass. Out: one loss per row. Nothing here needs torch when it is imported, so that settings
can be read without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from mcts_dpo.common.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from mcts_dpo.training.data.collate import Targets

Table = Literal["pairs", "siblings", "solutions"]


class ObjectiveSettings(Settings):
    """What every objective has. An objective's own settings are a subclass in its file.

    kind: the objective's name.
    """

    kind: str


class LossSettings(ObjectiveSettings):
    """The weights of the two terms: the loss of an update is nll_weight · NLL + preference_weight · ℓ.

    That is the sum of Pang et al. 2024, arXiv 2404.19733, equation 1, on steps.

    nll_weight:        of the NLL of the solution up to and including the chosen step (of a list: the best step). 0
                       leaves the term out.
    preference_weight: of the objective's own loss ℓ. Each default begins with about the pull of step_dpo at 0.02, the
                       value that small policies were tried with.
    """

    nll_weight: float = Field(1.0, ge=0)
    preference_weight: float = Field(0.02, ge=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.nll_weight == 0 and self.preference_weight == 0:
            raise ValueError("nll_weight and preference_weight are both 0; accepted: one of them above 0")
        return self


class BetaSettings(LossSettings):
    """An implicit reward β · log π, or β · (log π − log π_ref) with a reference.

    beta: inverse temperature of the implicit reward, > 0. 1 suits steps of a few nats (the DPO paper uses 0.1 on whole
          answers).
    """

    beta: float = Field(1.0, gt=0)


class ReferenceSettings(BetaSettings):
    """An implicit reward relative to the reference.

    length_normalised: divide every step's log-probability by the number of its tokens.
    """

    length_normalised: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one forward pass as an objective sees them: B steps in R rows (pairs or lists).

    policy:    [B] log-probabilities of the steps under the policy, nats, summed over the step's tokens; divided by
               their number with `length_normalised`. Differentiable.
    reference: [B] the same under the reference; None for an objective that needs none.
    means:     [B, width] mean of the last hidden states over each step; None unless the objective wants them.
    targets:   everything that the table says of the rows and steps; see `Targets`.
    """

    policy: Tensor
    reference: Tensor | None
    means: Tensor | None
    targets: Targets

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities of the chosen and the rejected steps, then the same under the reference: [R] each."""
        assert self.reference is not None
        first, last = self.targets.first, self.targets.last
        return self.policy[first], self.policy[last], self.reference[first], self.reference[last]

    @property
    def pairs_without_reference(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities of the chosen and the rejected steps, then the tokens of each: [R] each."""
        first, last, lengths = self.targets.first, self.targets.last, self.targets.lengths
        return self.policy[first], self.policy[last], lengths[first], lengths[last]

    @property
    def lists(self) -> tuple[Tensor, Tensor]:
        """[R, width] log-probabilities under the policy and the reference; `present` says which entries are steps."""
        assert self.reference is not None
        return self.policy[self.targets.indices], self.reference[self.targets.indices]

    @property
    def lists_without_reference(self) -> Tensor:
        """[R, width] log-probabilities under the policy; `present` says which entries are steps."""
        return self.policy[self.targets.indices]

    @property
    def present(self) -> Tensor:
        """[R, width] bool: which entries of a matrix of siblings are steps."""
        return self.targets.present

    def row(self, name: str) -> Tensor:
        """[R], a column of the rows in the policy's dtype: "smoothing" or "margin" of pairs."""
        return self.targets.row_columns[name].to(self.policy.dtype)

    def siblings(self, name: str) -> Tensor:
        """[R, width], a column of the steps in the policy's dtype: "value", "advantage" or "count" of siblings."""
        return self.targets.step_columns[name].to(self.policy.dtype)[self.targets.indices]


@dataclass(frozen=True, slots=True)
class Objective:
    """One way to learn from a table.

    settings:        the class of its settings. The default of its field `kind` is the objective's name.
    table:           which table it reads; the file in a round is `<table>.parquet`.
    losses:          called with `Steps` and an instance of `settings`; returns [R], the loss of each row. None for
                     maximum likelihood alone: then only the NLL is learned.
    needs_reference: whether `losses` uses the reference's log-probabilities.
    wants_means:     whether `losses` uses the steps' mean hidden states.
    needs_margins:   whether a table whose margins are all 0, or that has a margin below 0, is refused.
    """

    settings: type[ObjectiveSettings]
    table: Table
    losses: Callable[[Steps, Any], Tensor] | None
    needs_reference: bool = False
    wants_means: bool = False
    needs_margins: bool = False

    @property
    def name(self) -> str:
        """What `training.objective` calls it."""
        return str(self.settings.model_fields["kind"].default)

    @property
    def module(self) -> str:
        """The Python module that registers it."""
        return self.settings.__module__

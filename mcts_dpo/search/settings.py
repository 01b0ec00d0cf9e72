"""The settings of a search, with their ranges and defaults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.environments.registry import registered_environment
from mcts_dpo.rewards.outcome import OutcomeSettings
from mcts_dpo.rewards.registry import RewardEntry


class GumbelSettings(Settings):
    """Constants of `selection: gumbel` (Danihelka et al. 2022).

    considered: children of the root that simulations are shared out among (the best by g + log p).
    c_visit, c_scale: σ(q) = (c_visit + max N) · c_scale · q, q brought to [0, 1] over the root's children.
    """

    considered: int = Field(default=16, ge=1)
    c_visit: float = Field(default=50.0, ge=0.0, allow_inf_nan=False)
    c_scale: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)


def _faithful(name: str) -> str:
    if name == "reference_child":
        return "faithful.reference_child is search.reference_child now"
    return f"faithful.{name} was removed; docs/xie2024.md lists how the released code differs from its paper"


class SearchSettings(Settings):
    """One tree search per problem.

    expand:          what is sampled from a selected leaf: "rollout", whole solutions, every step of which becomes
                     a node; or "step", single steps (the paper). A blank line belongs to a step with text, except where
                     a stop string of white space ends solutions.
    simulations:     expansions per problem, the root's included.
    budget:          generated tokens per problem after which no further simulation starts (None: no limit). One
                     self-evaluation counts as the tokens of its longer answer (usually 1). In mode "solve" samples
                     are also cut, and fewer, so that they stay within it; in training, where a cut solution would be
                     taken for a wrong one, the last simulation may go over it.
    children:        k, the samples drawn by one expansion.
    temperature:     of the samples; top_p: their nucleus.
    max_step_tokens: limit of one step, for `expand: step`.
    max_tokens:      limit of a whole solution. A solution that reaches it unfinished is wrong.
    max_depth:       steps in a solution; the last of them is sampled to the end of the solution.
    selection:       "puct" (Q + c · p · √N(s) / (1 + N(s,a))) or "uct" (Q + c · √(ln N(s) / N(s,a))); c is `c_puct`;
                     "gumbel": Gumbel with sequential halving at the root (see gumbel.py), "puct" below it.
    gumbel:          its constants.
    c_puct:          the constant c of PUCT and UCT, ≥ 0.
    advance:         "none": the budget is spent from the root; "step": `simulations` are spent, then the search moves
                     to the most visited child (then of higher Q), keeps its subtree and spends as many there, until it
                     comes to the end of a solution (the reference; `budget` still bounds the whole tree).
    stop:            "budget", or "decided": also as soon as the most visited child of the root (of the node moved to)
                     can no longer be overtaken in what is left.
    prior:           p "normalised" over siblings, or "raw" as the reference implementation has it.
    length_penalty:  λ in p ∝ exp(Σ log π / |a|^λ).
    gamma:           γ, the discount of one step.
    backup:          "paper" (values recomputed from children) or "mean" (mean of the returns, as AlphaZero).
    rewards:         what a step is worth: R = Σ weight · score over these rewards (see `mcts_dpo.rewards.combine`),
                     one entry of a kind. Trees have a column of raw scores for each.
    environment:     what answers a step before the next one; "none": nothing does.
    parallel_leaves: most leaves of one tree that are out at once, held apart by a virtual loss each.
    schedule:        "synchronous": all trees move in step, so that the same search gives the same bytes on the same
                     engine, whatever else it runs; "asynchronous": every tree moves the moment its own completion is
                     back, which keeps the engine busy. With one parallel leaf the trees are the same as far as the
                     engine's own arithmetic is (other engines' last digits than those of the transformers engine on a
                     CPU may depend on what they run together).
    resume:          what a killed search over shards continues from. "journal": everything that the engine gave. The
                     rest is computed in batches of other sequences, which changes nothing on the transformers engine
                     on a CPU, but can change last digits on other engines. "shard": finished shards only, for the same
                     output as an undisturbed search on those engines, too (as far as they repeat themselves).
    alive:           trees searched at a time with "asynchronous"; None: twice as many as the engine runs sequences.
    reference_child: the reference solution's next step is one child more, at the root and wherever the path is the
                     reference's so far; with "rollout" all of its steps are. If it states no answer, a last step does.
                     The policy did not draw these steps: the prior mass of such a child is the mean of its siblings',
                     its log-probabilities are nan, and it has no visit before a simulation goes through it. Training
                     only: a solving search refuses it.
    seed:            a problem's samples depend on it, on the problem's id and on the simulation's index alone.
    """

    expand: Literal["rollout", "step"] = "rollout"
    simulations: int = Field(default=8, ge=1)
    budget: int | None = Field(default=None, ge=1)
    children: int = Field(default=4, ge=1)
    temperature: float = Field(default=0.8, ge=0.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_step_tokens: int = Field(default=64, ge=1)
    max_tokens: int = Field(default=256, ge=1)
    max_depth: int = Field(default=16, ge=1)
    selection: Literal["puct", "uct", "gumbel"] = "puct"
    gumbel: GumbelSettings = GumbelSettings()
    advance: Literal["none", "step"] = "none"
    stop: Literal["budget", "decided"] = "budget"
    c_puct: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    prior: Literal["normalised", "raw"] = "normalised"
    length_penalty: float = Field(default=1.25, ge=0.0, allow_inf_nan=False)
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    backup: Literal["paper", "mean"] = "paper"
    rewards: tuple[RewardEntry, ...] = (OutcomeSettings(),)
    environment: Annotated[str, AfterValidator(registered_environment), "'none'"] = "none"
    parallel_leaves: int = Field(default=1, ge=1, le=1024)
    schedule: Literal["synchronous", "asynchronous"] = "synchronous"
    resume: Literal["journal", "shard"] = "journal"
    alive: int | None = Field(default=None, ge=1)
    reference_child: bool = False
    seed: int = Field(default=0, ge=0)

    moved: ClassVar[dict[str, str]] = {
        "self_evaluation": "rewards.self_evaluation",
        "value_model": "rewards.value_model",
        "noise": "rewards.outcome.noise_per_rollout and rewards.outcome.noise_per_answer",
    }

    @field_validator("rewards")
    @classmethod
    def _one_of_a_kind(cls, rewards: tuple[RewardEntry, ...]) -> tuple[RewardEntry, ...]:
        kind, count = Counter(one.kind for one in rewards).most_common(1)[0] if rewards else ("", 0)
        if count > 1:
            raise ValueError(f"has {count} entries of kind {kind!r}; accepted: one entry of a kind")
        if not sum(one.weight for one in rewards):
            raise ValueError("has no weight above 0; accepted: a list of rewards whose weights sum to more than 0")
        return rewards

    @field_validator("schedule", mode="before")
    @classmethod
    def _renamed(cls, value: object) -> object:
        """Refuse the names of the first edition, with a message that gives today's names."""
        renamed = {"waves": "synchronous", "events": "asynchronous"}
        if isinstance(value, str) and value in renamed:
            raise ValueError(f"is called {renamed[value]!r} now")
        return value

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, data: object) -> object:
        """Refuse the settings `faithful.*` of the first edition, with a message that says what became of them."""
        if isinstance(data, Mapping) and "faithful" in data:
            given = data["faithful"]
            names = sorted(given) if isinstance(given, Mapping) and given else ["*"]
            raise ValueError("; ".join(_faithful(str(name)) for name in names))
        return data

    @model_validator(mode="after")
    def _coherent(self) -> SearchSettings:
        if self.max_step_tokens > self.max_tokens and "max_step_tokens" in self.model_fields_set:
            raise ValueError(
                f"max_step_tokens {self.max_step_tokens} exceeds max_tokens {self.max_tokens}; "
                "accepted: a step no longer than the solution"
            )
        if self.selection == "gumbel" and (self.advance, self.stop) != ("none", "budget"):
            raise ValueError(
                "selection: gumbel shares its budget out at the root; accepted with it: advance: none, stop: budget"
            )
        return self

"""The settings of a search, with their ranges and defaults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.environments.none import NoneSettings
from mcts_dpo.environments.registry import EnvironmentEntry
from mcts_dpo.rewards.combine import Accumulate
from mcts_dpo.rewards.outcome import OutcomeSettings
from mcts_dpo.rewards.registry import RewardEntry, judges_steps
from mcts_dpo.search.allocation.auto import AutoSettings
from mcts_dpo.search.allocation.registry import AllocationEntry

_STEP_TOKENS = 64
Merge = Literal["none", "whitespace", "loose"]
"""The values of `search.merge`."""


def _counts(value: int | tuple[int, ...]) -> int | tuple[int, ...]:
    counts = (value,) if isinstance(value, int) else value
    if not counts or min(counts) < 1:
        raise ValueError("is neither an integer ≥ 1 nor a list of one or more such integers")
    return value


class GumbelSettings(Settings):
    """The constants of `selection: gumbel` (Danihelka et al. 2022).

    considered: how many children of the root share the simulations: the best by g + log p.
    c_visit, c_scale: σ(q) = (c_visit + max N) · c_scale · q, with q scaled to [0, 1] over the root's children.
    """

    considered: int = Field(default=16, ge=1)
    c_visit: float = Field(default=50.0, ge=0.0, allow_inf_nan=False)
    c_scale: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)


def _faithful(name: str) -> str:
    if name == "reference_child":
        return "faithful.reference_child is search.reference_child now"
    return f"faithful.{name} was removed; docs/xie2024.md lists how the released code differs from its paper"


class SearchSettings(Settings):
    """The settings of a search with one tree per problem.

    expand:          what an expansion samples from the selected leaf. "rollout": whole solutions; each of their steps
                     becomes a node. "step": single steps (as in the paper). A blank line belongs to a step with text,
                     except where a stop string of white space ends solutions.
    simulations:     expansions per problem, including that of the root.
    budget:          generated tokens per problem. After them no further simulation starts (None: no limit). One
                     self-evaluation counts as the tokens of its longer answer (usually 1). In mode "solve" samples are
                     also cut and fewer, so that they stay within the budget. In training the last simulation may exceed
                     the budget, because a cut solution would be taken for a wrong one.
    seconds:         seconds per problem, from its first simulation. After them no further simulation starts (null: no
                     limit); the first one always runs. Results then depend on the machine, so a search that repeats
                     its bytes (synchronous, over problems) refuses it.
    children:        k, the number of samples that one expansion draws. A list is by depth: its first entry is for the
                     root, and its last entry is for all deeper nodes, too.
    merge:           which steps after the same parent become one child. "whitespace": those whose texts differ in white
                     space only. "loose": those whose texts differ in case, spaces (LaTeX's, too) and punctuation at the
                     end (. , ; : ?) only. "none": those with equal tokens. Steps that end differently (the solution
                     continues, ends, or was cut) are never merged.
    temperature:     the temperature of the samples.
    top_p:           the nucleus of the samples.
    top_k:           only the k most likely tokens are sampled; 0 keeps all. Of this and the next three, an engine that
                     lacks one refuses it.
    min_p:           only tokens at least this many times as likely as the most likely one are sampled.
    repetition_penalty: divides (multiplies, if negative) the logit of a token that the prompt or the solution so far
                     contains. 1 changes nothing.
    presence_penalty: is subtracted from the logit of a token that the solution so far contains.
    generation_config: "model": temperature, top_p, top_k, min_p and repetition_penalty are those of the model's own
                     generation_config.json, except those that are set here. What was taken is printed, and a run's
                     settings hold it. "none": the file is not read.
    max_step_tokens: the limit of one step in tokens, for `expand: step`.
    max_tokens:      the limit of a whole solution in tokens. A solution that reaches it unfinished is wrong.
    max_depth:       the number of steps in a solution. The last step is sampled to the end of the solution.
    depth_from:      where `max_depth` counts from. "root": the root. "advanced": the node that `advance: step` has
                     come to, as in the reference implementation.
    selection:       how a simulation selects a leaf. "puct": Q + c · p · √N(s) / (1 + N(s,a)). "uct": Q +
                     c · √(ln N(s) / N(s,a)). Here c is `c_puct`. "gumbel": Gumbel with sequential halving at the root
                     (see gumbel.py), and "puct" below it.
    gumbel:          the constants of `selection: gumbel`.
    c_puct:          the constant c of PUCT and UCT, ≥ 0.
    allocation:      where the next samples are drawn. "fixed": every node is expanded once, with `children` samples.
                     Other rules draw again from nodes that have samples already; then a tree is never exhausted.
                     "auto": "filter" where a question is answered (solve, serve, the strategy mcts) and a judge scores
                     every step; it draws single steps until the budget is spent, so `expand`, `children` and
                     `simulations` do not count. "fixed" everywhere else.
    advance:         "none": the whole budget is spent from the root. "step": `simulations` are spent, then the search
                     moves to the most visited child (then of higher Q), keeps its subtree and spends as many there,
                     until it reaches the end of a solution (as the reference does). `budget` still limits the whole
                     tree.
    stop:            "budget": a tree ends when its simulations or its tokens are spent. "decided": it also ends as soon
                     as no other child of the root (of the node moved to) can overtake the most visited child with what
                     is left.
    prior:           "normalised": p is normalised over siblings. "raw": p is used as it is, as in the reference
                     implementation.
    length_penalty:  λ in p ∝ exp(Σ log π / |a|^λ).
    gamma:           γ, the discount of one step.
    backup:          "paper": values are recomputed from children. "mean": a value is the mean of the returns, as in
                     AlphaZero.
    rewards:         what a state is worth: R = Σ weight · score over these rewards (see `mcts_dpo.rewards.combine`).
                     Each kind has at most one entry. Trees have a column of raw scores for each reward.
    accumulate:      the reward of a step. "difference": R of the state after it minus R of the state before it, so that
                     values stay in the range of R at any depth. "sum": the weighted sum of the step's own scores, so
                     that long paths gather more than short ones.
    environment:     what replies to a step before the next step starts (see docs/environments.md). "none": nothing
                     replies.
    parallel_leaves: the most leaves of one tree that are in flight at once. A virtual loss on each keeps them apart.
    schedule:        "synchronous": all trees advance together, so that the same search gives the same bytes on the same
                     engine, whatever else the engine runs. "asynchronous": each tree advances as soon as its own
                     completion is back, which keeps the engine busy. With one parallel leaf both give the same trees,
                     as far as the engine's own arithmetic is the same. (Except for the transformers engine on a CPU,
                     an engine's last digits may depend on what it runs together.)
    resume:          what a killed search over shards continues from. "journal": everything that the engine gave. The
                     rest is computed in batches with other sequences. This changes nothing on the transformers engine
                     on a CPU, but it can change last digits on other engines. "shard": finished shards only. Then those
                     engines, too, give the same output as in an undisturbed search (as far as they repeat themselves).
    alive:           how many trees are searched at a time with "asynchronous". None: twice as many as the engine runs
                     sequences.
    reference_child: true: the reference solution's next step becomes one more child, at the root and wherever the path
                     is the reference's so far. With "rollout" all of its steps become nodes. If the reference states no
                     answer, a last step states it. The policy did not sample these steps: the prior mass of such a
                     child is the mean of its siblings', its log-probabilities are nan, and it has no visit before a
                     simulation goes through it. For training only: a solving search refuses it.
    close_child:     true: wherever a thought is open, its end by force becomes one more child of an expanded node, so
                     that the tree knows what an early answer is worth. The policy did not sample it; as with
                     `reference_child`, its prior mass is the mean of its siblings'.
    seed:            a problem's samples depend only on it, on the problem's id and on the simulation's index.
    """

    expand: Literal["rollout", "step"] = "rollout"
    simulations: int = Field(default=8, ge=1)
    budget: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    children: Annotated[int | tuple[int, ...], AfterValidator(_counts), "an integer ≥ 1 or a list of them"] = 4
    merge: Merge = "whitespace"
    temperature: float = Field(default=0.8, ge=0.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    generation_config: Literal["none", "model"] = "none"
    max_step_tokens: int = Field(default=_STEP_TOKENS, ge=1)
    max_tokens: int = Field(default=256, ge=1)
    max_depth: int = Field(default=16, ge=1)
    depth_from: Literal["root", "advanced"] = "root"
    selection: Literal["puct", "uct", "gumbel"] = "puct"
    gumbel: GumbelSettings = GumbelSettings()
    allocation: AllocationEntry = AutoSettings()
    advance: Literal["none", "step"] = "none"
    stop: Literal["budget", "decided"] = "budget"
    c_puct: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    prior: Literal["normalised", "raw"] = "normalised"
    length_penalty: float = Field(default=1.25, ge=0.0, allow_inf_nan=False)
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    backup: Literal["paper", "mean"] = "paper"
    rewards: tuple[RewardEntry, ...] = (OutcomeSettings(),)
    accumulate: Accumulate = "difference"
    environment: EnvironmentEntry = NoneSettings()
    parallel_leaves: int = Field(default=1, ge=1, le=1024)
    schedule: Literal["synchronous", "asynchronous"] = "synchronous"
    resume: Literal["journal", "shard"] = "journal"
    alive: int | None = Field(default=None, ge=1)
    reference_child: bool = False
    close_child: bool = False
    seed: int = Field(default=0, ge=0)

    moved: ClassVar[dict[str, str]] = {
        "self_evaluation": "rewards.self_evaluation",
        "value_model": "rewards.value_model",
        "noise": "rewards.outcome.noise_per_rollout and rewards.outcome.noise_per_answer",
    }

    def children_at(self, depth: int) -> int:
        """The samples of one expansion of a node at this depth (the root's is 0)."""
        return self.children if isinstance(self.children, int) else self.children[min(depth, len(self.children) - 1)]

    @property
    def most_children(self) -> int:
        """The most samples of any expansion."""
        return self.children if isinstance(self.children, int) else max(self.children)

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
        if self.max_step_tokens > self.max_tokens and self.max_step_tokens != _STEP_TOKENS:  # trees store the default
            raise ValueError(
                f"max_step_tokens {self.max_step_tokens} exceeds max_tokens {self.max_tokens}; "
                "accepted: a step no longer than the solution"
            )
        kind = self.allocation
        if kind.needs_judge and not judges_steps(self.rewards):
            raise ValueError(
                f"allocation: {kind.kind} needs a judge of steps; accepted: with an entry in rewards that needs no "
                "reference answer, such as {kind: self_evaluation, at: all}"
            )
        if kind.expand and self.expand != kind.expand:
            raise ValueError(f"allocation: {kind.kind} draws with expand: {kind.expand}; accepted: that")
        if kind.merge and self.merge != kind.merge:
            raise ValueError(f"allocation: {kind.kind} cuts inside words; accepted with it: merge: {kind.merge}")
        if kind.cuts_per_sample() and self.environment.kind != "none":
            raise ValueError(
                f"allocation: {kind.kind} cuts inside steps, which environment {self.environment.kind} replies to; "
                "accepted with it: another rule"
            )
        if kind.selections and self.selection not in kind.selections:
            accepted = " or ".join(kind.selections)
            raise ValueError(f"allocation: {kind.kind} does not know selection: {self.selection}; accepted: {accepted}")
        if not kind.advances and self.advance != "none":
            raise ValueError(f"allocation: {kind.kind} starts at the root; accepted with it: advance: none")
        if self.selection == "gumbel" and (self.advance, self.stop) != ("none", "budget"):
            raise ValueError(
                "selection: gumbel shares its budget out at the root; accepted with it: advance: none, stop: budget"
            )
        return self

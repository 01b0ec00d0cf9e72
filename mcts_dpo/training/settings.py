"""The settings of training. They know nothing of how training is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.data.rows import MAX_MIB
from mcts_dpo.models.encoding import SpecialTokens

BuiltIn = Literal[
    "step_dpo",
    "step_rft",
    "rft",
    "robust_dpo",
    "ipo",
    "hinge",
    "odpo",
    "mmpo",
    "simpo",
    "orpo",
    "kto",
    "lipo",
    "tpo",
    "sibling_distillation",
    "tree_policy_gradient",
]
Objective = str
"""One of `BuiltIn`, or a name of `REGISTERED`."""
BAD_ROWS = 0.1
"""The share of unusable rows that TRL-style data may have unless a setting says otherwise."""
REGISTERED: set[str] = set()
"""Further objectives; `objectives.register_objective` adds to them."""
Positive = Annotated[int, Field(ge=1)]


def _registered(name: str) -> str:
    if name not in REGISTERED:
        raise ValueError("is not a registered objective")
    return name


class LoraSettings(Settings):
    """Low-rank adapters: W + (alpha / rank) · B A, of which only A and B are trained.

    rank:    width of A and B.
    alpha:   numerator of their scale.
    targets: "all-linear" (every linear layer but the head), or names of modules such as "q_proj"; not the head or the
             embeddings, whose adapters could not be trained here.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
    """

    rank: Positive = 16
    alpha: float = Field(32.0, gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainingSettings(Settings):
    """How a policy is trained from pairs, solutions or lists of siblings.

    objective:            what is learned, and from which table. Likelihood alone: "rft" (solutions: NLL of the
                          completion), "step_rft" (pairs: NLL of the chosen step). All others are nll_weight · NLL +
                          preference_weight · ℓ, ℓ from `mcts_dpo.training.losses`: on pairs "step_dpo", "robust_dpo",
                          "ipo", "hinge", "odpo", "mmpo", and without a reference "simpo", "orpo"; on lists of siblings
                          "kto", "lipo", "tpo", "tree_policy_gradient", without a reference "sibling_distillation".
    beta:                 inverse temperature of the implicit reward, > 0. null: the objective's own
                          (`objectives.BETAS`): 1, which suits steps of a few nats (the paper: 0.1; SimPO's range: 2 to
                          10), and 0.25 for IPO, whose target is a gap of 1 / (2 beta) nats.
    nll_weight:           of the NLL of the solution up to and with the chosen (a list's best) step; 0 leaves it out.
    preference_weight:    of the preference loss ℓ. null: the objective's own (`objectives.PREFERENCE_WEIGHTS`), chosen
                          so that each begins with about the pull of step_dpo at 0.02.
    length_normalised:    divide every step's log-probability by its tokens (simpo and orpo always do, by themselves;
                          not for tree_policy_gradient and sibling_distillation, which need probabilities).
    target_margin:        hinge's δ > 0 (1) and SimPO's γ (0.3 to 1.5), in units of beta · log-probability.
    flip_rate:            robust_dpo's ε, the share of labels that are the wrong way round, below 0.5 (paper: 0.1). The
                          visit-count smoothing of the pairs is conservative DPO's own and used by step_dpo only.
    margin_scale:         nats of beta · h per unit of the gap in Q: odpo's offset; where mmpo's label is at rest.
    temperature:          sibling_distillation's τ, in units of Q: its target is n · exp(Q / τ). 0.1 to 2.
    renormalise:          sibling_distillation over the siblings' probabilities renormalised to 1.
    desirable_weight, undesirable_weight: KTO's λ_D and λ_U, > 0 (1 to 4/3 between the classes). A sibling is desirable
                          where Q > V of its parent; one with Q = V is left out.
    advantage_clip, ratio_clip: tree_policy_gradient's bound on |Q − V|, and ε of the clipped ratio (0.1 to 0.3).
    lr, schedule, warmup: peak learning rate; its decay to zero; share of updates that rise linearly to the peak.
    epochs, max_updates:  passes over the data; a cap on updates (the schedule follows the true number).
    batch_size:           pairs, solutions or lists per update, at most; an epoch is cut into updates of equal size.
    packing:              compute every token once that several sequences of an update share with the same prefix: a
                          tree is one sequence in which a token sees its own ancestors (`packing.py`). false: each
                          sequence by itself, padded; for models whose attention cannot be exchanged.
    max_batch_tokens:     tokens per forward pass (packed: unique ones; else with padding). An update accumulates over
                          as many as it needs, normalised by the whole update's totals, so that this sets memory and
                          speed and not what is learned.
    weight_decay:         AdamW's, on matrices only. max_grad_norm: clip the global gradient norm to it (null: never).
    dtype:                of the weights that are computed with; updates always go to float32 copies. "auto": what the
                          policy is stored in for LoRA (on a CPU without bfloat16 instructions: float32), float32 for
                          full training.
    lora:                 null trains all weights.
    gradient_checkpointing: recompute layers in the backward pass: less memory, a third more time.
    threads:              of torch on the CPU (null: as they are). seed: of the data order and of new adapters.
    chosen_alarm, rejected_alarm: nats by which the mean log-probability of a chosen (rejected) step may fall below its
                          start before an alarm goes off.
    on_alarm:             "warn" says so and goes on; "stop" says so, keeps a checkpoint and ends the training.
    checkpoint_minutes, checkpoint_updates: how often a checkpoint is written, by the clock and by updates (null: not).
                          It costs three float32 copies of the trained weights on disk; no result depends on it.
    evaluate_every:       updates between calls of the evaluation that `train` was given (null: after the last only).
    trackers:             who follows the figures besides the log: "tensorboard" (where installed), "wandb", "trackio".
    split, append_eos:    of TRL-style data: which split of a data set on the hub; whether its completions end the
                          answer (false for single steps).
    bad_rows:             of TRL-style data: the share of rows that may be unusable (not JSON, a field missing, too long
                          for the policy, …). They are named and left out; more of them end the training.
    max_mib:              of TRL-style data: how much text a compressed file may hold, in MiB.
    special_tokens:       of TRL-style data: control tokens in messages are spelt in ordinary tokens ("split"), or act
                          ("allow"). A text without messages has no template, so that its control tokens act.
    regression_weight, ranking_weight: of a value model's two losses, regression to Q and pairwise ranking.
    ranking, ranking_margin: "margin", max(0, ranking_margin − gap), in units of Q; or "logistic", −log σ(gap).
    sharding:             under torchrun, each process holds a share of every weight (FSDP2) instead of all of them.
    """

    objective: BuiltIn | Annotated[str, AfterValidator(_registered), "a registered objective"] = "step_dpo"
    beta: Annotated[float, Field(gt=0)] | None = None
    nll_weight: float = Field(1.0, ge=0)
    preference_weight: Annotated[float, Field(ge=0)] | None = None
    length_normalised: bool = False
    target_margin: float = Field(1.0, gt=0)
    flip_rate: float = Field(0.1, ge=0, lt=0.5)
    margin_scale: float = Field(1.0, gt=0)
    temperature: float = Field(0.5, gt=0)
    renormalise: bool = False
    desirable_weight: float = Field(1.0, gt=0)
    undesirable_weight: float = Field(1.0, gt=0)
    advantage_clip: float = Field(1.0, gt=0)
    ratio_clip: float = Field(0.2, gt=0, lt=1)
    lr: float = Field(1e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, le=1)
    epochs: Positive = 1
    max_updates: Positive | None = None
    batch_size: Positive = 32
    packing: bool = True
    max_batch_tokens: Positive = 4096
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    threads: Positive | None = None
    seed: int = Field(0, ge=0)
    chosen_alarm: float = Field(0.1, ge=0)
    rejected_alarm: float = Field(4.0, ge=0)
    on_alarm: Literal["warn", "stop"] = "warn"
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = 10.0
    checkpoint_updates: Positive | None = None
    evaluate_every: Positive | None = None
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    regression_weight: float = Field(1.0, ge=0)
    ranking_weight: float = Field(1.0, ge=0)
    ranking: Literal["margin", "logistic"] = "margin"
    ranking_margin: float = Field(0.1, ge=0)
    split: str = "train"
    append_eos: bool = True
    bad_rows: float = Field(BAD_ROWS, ge=0, le=1)
    max_mib: Positive = MAX_MIB
    special_tokens: SpecialTokens = "split"
    sharding: bool = False

    @model_validator(mode="after")
    def _coherent(self) -> TrainingSettings:
        if self.objective not in ("rft", "step_rft") and self.nll_weight == 0 and self.preference_weight == 0:
            raise ValueError("nll_weight and preference_weight are both 0; accepted: one of them above 0")
        if self.regression_weight == 0 and self.ranking_weight == 0:
            raise ValueError("regression_weight and ranking_weight are both 0; accepted: one of them above 0")
        return self


class LaunchSettings(Settings):
    """Which processes do a run's trainings.

    processes: on each machine, started by `torchrun`, one per GPU. 1: the run's own process, unless `arguments` or
               `prefix` are given.
    arguments: of torchrun, in place of --standalone, for several machines: ["--nnodes=2", "--rdzv-backend=c10d",
               "--rdzv-endpoint=HOST:PORT"].
    prefix:    the command that starts torchrun on all of them: ["srun", "--nodes=2", "--ntasks-per-node=1"].
    restarts:  how often processes that died, or failed for no fault of the input, are started again, from the last
               checkpoint, before the run gives up. Want of memory does not count.
    """

    processes: int = Field(1, ge=1)
    arguments: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    restarts: int = Field(3, ge=0)

    @property
    def outside(self) -> bool:
        """Whether trainings are done by other processes than the run's own."""
        return self.processes > 1 or bool(self.arguments or self.prefix)

"""The settings of training: optimiser, data, objective, checkpoints, and what belongs to none of these."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.common.settings import Settings
from mcts_dpo.data.rows import MAX_MIB
from mcts_dpo.models.encoding import SpecialTokens
from mcts_dpo.training.objectives.base import ObjectiveSettings
from mcts_dpo.training.objectives.registry import objective_named, objective_names, objective_settings

BAD_ROWS = 0.1
"""The share of unusable rows that TRL-style data may have unless a setting says otherwise."""
DEFAULT_OBJECTIVE = "step_dpo"
Positive = Annotated[int, Field(ge=1)]
Chosen = Annotated[
    SerializeAsAny[ObjectiveSettings],
    Kinds(objective_names, lambda name: objective_named(name).settings, DEFAULT_OBJECTIVE),
]
"""An objective as settings hold it: `{kind: NAME, …}`, or NAME alone."""


class LoraSettings(Settings):
    """Low-rank adapters: W + (alpha / rank) · B A, of which only A and B are trained.

    rank:    width of A and B.
    alpha:   numerator of their scale.
    targets: "all-linear" (every linear layer but the head), or names of modules such as "q_proj". Adapters on the head
             or the embeddings cannot be trained here.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
    """

    rank: Positive = 16
    alpha: float = Field(32.0, gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class OptimiserSettings(Settings):
    """AdamW and its learning rate. Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.

    lr:            peak learning rate, > 0.
    schedule:      how the learning rate falls to zero after the peak; "constant" keeps it.
    warmup:        share of the updates over which the learning rate rises linearly to the peak, in [0, 1].
    weight_decay:  AdamW's, ≥ 0, on matrices only.
    betas:         AdamW's decay rates of the gradient's mean and of its square, each in [0, 1).
    max_grad_norm: a larger global gradient norm is scaled down to this (null: never).
    """

    lr: float = Field(1e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0


class DataSettings(Settings):
    """How rows become updates and forward passes, and how TRL-style data is read.

    epochs:           passes over the data.
    max_updates:      a cap on the number of updates; the schedule follows the true number (null: no cap).
    batch_size:       pairs, solutions or lists per update, at most. An epoch is divided into updates of equal size.
    packing:          compute every token once that several sequences of an update share with the same prefix: a tree
                      becomes one sequence in which a token sees its own ancestors (`packing.py`). false: each sequence
                      alone, padded; for models whose attention cannot be exchanged.
    max_batch_tokens: tokens per forward pass (packed: unique tokens; otherwise with padding). An update uses as many
                      passes as it needs, normalised by the whole update's totals, so this sets memory and speed, not
                      what is learned.
    split:            of TRL-style data: which split of a data set on the hub.
    append_eos:       of TRL-style data: whether its completions end the answer (false for single steps).
    bad_rows:         of TRL-style data: the share of rows that may be unusable (not JSON, a field missing, too long for
                      the policy, …). Unusable rows are named and left out; a larger share ends the training.
    max_mib:          of TRL-style data: how much text a compressed file may hold, in MiB.
    special_tokens:   of TRL-style data: whether control tokens in messages are spelt in ordinary tokens ("split") or
                      act ("allow"). A text without messages has no template, so its control tokens act.
    """

    epochs: Positive = 1
    max_updates: Positive | None = None
    batch_size: Positive = 32
    packing: bool = True
    max_batch_tokens: Positive = 4096
    split: str = "train"
    append_eos: bool = True
    bad_rows: float = Field(BAD_ROWS, ge=0, le=1)
    max_mib: Positive = MAX_MIB
    special_tokens: SpecialTokens = "split"


class CheckpointSettings(Settings):
    """How often a checkpoint is written. It needs disk space for three float32 copies of the trained weights.

    No result depends on these settings.

    minutes: minutes between checkpoints (null: none by the clock).
    updates: updates between checkpoints (null: none by number).
    """

    minutes: Annotated[float, Field(ge=0)] | None = 10.0
    updates: Positive | None = None


class ValueLossSettings(Settings):
    """The two losses of a value model (`train --value`, `value.training`): regression to Q and pairwise ranking.

    regression_weight: of the squared error to Q.
    ranking_weight:    of the ranking loss.
    ranking:           "margin": max(0, ranking_margin − gap); "logistic": −log σ(gap).
    ranking_margin:    the gap that the margin loss asks for, in units of Q.
    """

    regression_weight: float = Field(1.0, ge=0)
    ranking_weight: float = Field(1.0, ge=0)
    ranking: Literal["margin", "logistic"] = "margin"
    ranking_margin: float = Field(0.1, ge=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.regression_weight == 0 and self.ranking_weight == 0:
            raise ValueError("regression_weight and ranking_weight are both 0; accepted: one of them above 0")
        return self


class ProcessRewardSettings(Settings):
    """What a process reward model learns (`train --process-reward`), from the labels of steps.

    kind:           "classification": the probability that a step is right, from two logits; "regression": one number.
    target:         "first_error": 1 before the first error of a path and 0 from it on; steps of which neither is known
                    are left out. "soft": the share of right solutions among the samples below the step. "hard": whether
                    there is one.
    min_samples:    samples below a step that must all be wrong, before the step counts as a first error.
    prior_samples:  s ≥ 0. A label that rests on n samples has weight n / (n + s). 0: all labels weigh the same.
    ranking_weight: of the loss that orders siblings as their labels are ordered; 0: none.
    trunk:          without `lora`: "trained" trains all weights, "frozen" the head alone.
    """

    kind: Literal["classification", "regression"] = "classification"
    target: Literal["first_error", "soft", "hard"] = "first_error"
    min_samples: Positive = 2
    prior_samples: float = Field(1.0, ge=0, allow_inf_nan=False)
    ranking_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    trunk: Literal["trained", "frozen"] = "trained"


class SelfEvaluationLossSettings(Settings):
    """How the policy is taught to judge its own steps (`train --self-evaluation`), by questions made from trees.

    share:        of the questions among the rows of a training, and in its loss: (1 − share) · objective + share · NLL
                  of yes or no. Without data of an objective, the questions are everything.
    min_samples:  samples below a step that must all be wrong, before the step counts as a first error.
    first_errors: share of the questions that are about first errors; each first error is asked about once.
    before:       share of the questions that are about steps before a first error; the others are about any step.
    """

    share: float = Field(0.25, gt=0, lt=1)
    min_samples: Positive = 2
    first_errors: float = Field(0.4, gt=0, le=1)
    before: float = Field(0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.first_errors + self.before > 1:
            raise ValueError("first_errors and before add up to more than 1; accepted: shares of one whole")
        return self


class TrainingSettings(Settings):
    """How a policy is trained from pairs, solutions or lists of siblings.

    objective:              what is learned, and from which table: an objective's name, or `{kind: NAME, …}` with its
                            own settings. Each is described in its file in `mcts_dpo/training/objectives/`.
    value:                  the losses of a value model, which has no objective.
    process_reward:         what a process reward model learns; it has no objective either.
    self_evaluation:        the questions that teach the policy to judge its steps, where a training is given any.
    dtype:                  of the weights that are computed with; updates always go to float32 master weights. "auto":
                            the dtype that the policy is stored in for LoRA (float32 on a CPU without bfloat16
                            instructions), float32 for full training.
    lora:                   null trains all weights.
    gradient_checkpointing: recompute layers in the backward pass: less memory, a third more time.
    sharding:               under torchrun, each process holds a share of every weight (FSDP2) instead of all of them.
    threads:                of torch on the CPU (null: 1 for a model of fewer than 250,000 weights, else unchanged).
    seed:                   of the data order and of new adapters.
    evaluate_every:         updates between calls of the evaluation that `train` was given (null: after the last only).
    trackers:               what receives the figures besides the log: "tensorboard" (where installed), "wandb",
                            "trackio".
    chosen_alarm, rejected_alarm: nats by which the mean log-probability of a chosen (rejected) step may fall below its
                            start before an alarm goes off.
    on_alarm:               "warn" reports an alarm and continues; "stop" reports it, keeps a checkpoint and ends the
                            training.
    """

    objective: Chosen = Field(default_factory=lambda: objective_settings(DEFAULT_OBJECTIVE))
    optimiser: OptimiserSettings = OptimiserSettings()
    data: DataSettings = DataSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    value: ValueLossSettings = ValueLossSettings()
    process_reward: ProcessRewardSettings = ProcessRewardSettings()
    self_evaluation: SelfEvaluationLossSettings = SelfEvaluationLossSettings()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    sharding: bool = False
    threads: Positive | None = None
    seed: int = Field(0, ge=0)
    evaluate_every: Positive | None = None
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    chosen_alarm: float = Field(0.1, ge=0)
    rejected_alarm: float = Field(4.0, ge=0)
    on_alarm: Literal["warn", "stop"] = "warn"

    moved: ClassVar[dict[str, str]] = {
        **{name: f"optimiser.{name}" for name in OptimiserSettings.model_fields if name != "betas"},
        **{name: f"data.{name}" for name in DataSettings.model_fields},
        **{name: f"value.{name}" for name in ValueLossSettings.model_fields},
        "checkpoint_minutes": "checkpoint.minutes",
        "checkpoint_updates": "checkpoint.updates",
        **{
            name: f"objective.{name}"
            for name in (
                *("beta", "nll_weight", "preference_weight", "length_normalised", "target_margin", "flip_rate"),
                *("margin_scale", "temperature", "renormalise", "desirable_weight", "undesirable_weight"),
                *("advantage_clip", "ratio_clip"),
            )
        },
    }


class LaunchSettings(Settings):
    """Which processes do a run's trainings.

    processes: on each machine, started by `torchrun`, one per GPU. 1: the run's own process, unless `arguments` or
               `prefix` are given.
    arguments: of torchrun, instead of --standalone, for several machines: ["--nnodes=2", "--rdzv-backend=c10d",
               "--rdzv-endpoint=HOST:PORT"].
    prefix:    the command that starts torchrun on all of them: ["srun", "--nodes=2", "--ntasks-per-node=1"].
    restarts:  how often processes that died, or failed without a fault of the input, are started again from the last
               checkpoint, before the run gives up. Running out of memory does not count.
    """

    processes: int = Field(1, ge=1)
    arguments: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    restarts: int = Field(3, ge=0)

    @property
    def outside(self) -> bool:
        """Whether trainings are done by other processes than the run's own."""
        return self.processes > 1 or bool(self.arguments or self.prefix)

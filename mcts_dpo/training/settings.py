"""The settings of training. They know nothing of how training is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mcts_dpo.settings import Settings

Objective = Literal["step_dpo", "step_rft", "rft"]
Positive = Annotated[int, Field(ge=1)]


class LoraSettings(Settings):
    """Low-rank adapters: W + (alpha / rank) · B A, of which only A and B are trained.

    rank:    width of A and B.
    alpha:   numerator of their scale.
    targets: "all-linear" (every linear layer but the head), or names of modules such as "q_proj".

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
    """

    rank: Positive = 16
    alpha: float = Field(32.0, gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainingSettings(Settings):
    """How a policy is trained from pairs or solutions.

    objective:            "step_dpo" (pairs: nll_weight · NLL + preference_weight · step-DPO), "step_rft" (pairs: NLL of
                          the chosen step only), "rft" (solutions: NLL of the completion).
    beta:                 inverse temperature of the implicit reward, > 0 (1 suits steps of a few nats; the paper: 0.1).
    nll_weight:           of the NLL of the solution up to and with the chosen step (step_dpo only; 0 leaves it out).
    preference_weight:    of the preference loss (step_dpo only).
    lr, schedule, warmup: peak learning rate; its decay to zero; share of updates that rise linearly to the peak.
    epochs, max_updates:  passes over the data; a cap on updates (the schedule follows the true number).
    batch_size:           pairs or solutions per update, at most; an epoch is cut into updates of equal size.
    max_batch_tokens:     padded tokens per forward pass. An update accumulates over as many as it needs, normalised by
                          the whole update's totals, so that this sets memory and speed and not what is learned.
    weight_decay:         AdamW's, on matrices only. max_grad_norm: clip the global gradient norm to it (null: never).
    dtype:                of the weights that are computed with; updates always go to float32 copies. "auto": what the
                          policy is stored in for LoRA, float32 for full training.
    lora:                 null trains all weights.
    gradient_checkpointing: recompute layers in the backward pass: less memory, a third more time.
    threads:              of torch on the CPU (null: as they are). seed: of the data order and of new adapters.
    chosen_alarm, rejected_alarm: nats by which the mean log-probability of a chosen (rejected) step may fall below its
                          start before the summary carries an alarm.
    """

    objective: Objective = "step_dpo"
    beta: float = Field(1.0, gt=0)
    nll_weight: float = Field(1.0, ge=0)
    preference_weight: float = Field(0.02, ge=0)
    lr: float = Field(1e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, le=1)
    epochs: Positive = 1
    max_updates: Positive | None = None
    batch_size: Positive = 32
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

"""How weights change: the learning rate of each update, AdamW on float32 master weights, clipping of the gradient norm.

In: settings, master weights with gradients. Out: the master weights, updated in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mcts_dpo.training.distributed import DistributedContext
from mcts_dpo.training.settings import OptimiserSettings


def schedule(update: int, updates: int, settings: OptimiserSettings) -> float:
    """The share, in (0, 1], of the peak learning rate at `update` (0-based) of `updates`.

    Rises linearly over the first ceil(warmup · updates) updates, the last of them at the peak; then falls to zero at
    the (imagined) update after the last one, along half a cosine or a line, or stays.
    """
    rising = math.ceil(settings.warmup * updates)
    if update < rising:
        return (update + 1) / rising
    done = (update - rising) / (updates - rising)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if settings.schedule == "linear" else 1.0


def make_optimizer(master_weights: Sequence[Tensor], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only. Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2."""
    matrices = [master for master in master_weights if master.dim() >= 2]
    vectors = [master for master in master_weights if master.dim() < 2]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
        if params
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def clip(master_weights: Sequence[Tensor], bound: float | None, context: DistributedContext, sharded: bool) -> float:
    """The global gradient norm (L2, over all processes where each holds a shard); gradients above `bound` are scaled
    down to it."""
    gradients = [master.grad for master in master_weights if master.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if sharded:
        norm = context.sum(norm.double().square()).sqrt().to(norm.dtype)
    if bound is not None:
        nn.utils.clip_grads_with_norm_(list(master_weights), bound, norm)
    return float(norm)

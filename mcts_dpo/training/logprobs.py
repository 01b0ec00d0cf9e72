"""Log-probabilities of given tokens under a model, whether they come packed or one padded row per sequence.

In: a Hugging Face causal language model and a `Packed` or a `Batch`. Out: one log-probability per scored token and one
sum per step. The head is applied only where a scored token is predicted, in pieces that bound the memory of its
logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mcts_dpo.common.errors import InputError
from mcts_dpo.models import packed_forward
from mcts_dpo.training.data.batches import Batch
from mcts_dpo.training.data.packing import Packed

LOGITS_AT_ONCE = 1 << 24
"""Elements of logits held at one time (64 MiB in float32): rows of a piece = this // vocabulary."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Natural log-probabilities, float32 (float64 for a float64 model), differentiable.

    tokens: [T] ≤ 0, of each scored token given all before it, in the batch's order; of a pack, [U], each once.
    steps:  [B], the sum over each sequence's step.
    means:  [B, width], not differentiable: the mean of the last states at each step's own scored tokens; None unless
            asked for.
    """

    tokens: Tensor
    steps: Tensor
    means: Tensor | None = None


def score(model: Any, batch: Batch | Packed, *, means: bool = False, logits_at_once: int = LOGITS_AT_ONCE) -> Scores:
    """Log-probabilities of the batch's scored tokens under `model`.

    model: a transformers causal language model (`check_readable`; for a pack also `check_packable`), whose dropout
           must be off (evaluation mode). Scoring a pack sets its attention for good (`packed_forward`).
    means: whether the steps' mean states are wanted too.
    logits_at_once: bound on logits held at one time, in elements; it changes memory and time, not the result.
    """
    states = _last_states(model, batch)
    predicting = states.index_select(0, batch.positions)
    tokens = _readout(predicting, model.get_output_embeddings(), batch.targets, logits_at_once)
    found = _step_means(states.detach(), batch) if means else None
    if isinstance(batch, Packed):
        unique = tokens.new_zeros(batch.steps).index_add(0, batch.step_owner, tokens[batch.step_tokens])
        return Scores(tokens, unique[batch.step_of], found)
    steps = tokens.new_zeros(len(batch.input_ids)).index_add(0, batch.owner, tokens * batch.in_step)
    return Scores(tokens, steps, found)


def states_of(model: Any, batch: Batch | Packed) -> Tensor:
    """[T, width]: the last states of the batch's scored tokens, in the batch's order. Their own tokens are read."""
    return _last_states(model, batch).index_select(0, batch.scored_positions)


def _last_states(model: Any, batch: Batch | Packed) -> Tensor:
    """[places, width]: the model's last states, all sequences one after the other; of a pack, each token once."""
    if isinstance(batch, Packed):
        states = packed_forward.packed_states(model, batch)
    else:
        states = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return states.reshape(-1, states.shape[-1])


def _step_means(states: Tensor, batch: Batch | Packed) -> Tensor:
    """[B, width]: the mean state of each sequence's step, in float32 at least."""
    if isinstance(batch, Packed):
        indices, owner, steps = batch.scored_positions[batch.step_tokens], batch.step_owner, batch.steps
    else:
        indices, owner, steps = batch.scored_positions[batch.in_step], batch.owner[batch.in_step], len(batch.input_ids)
    wide = states.index_select(0, indices).to(torch.promote_types(states.dtype, torch.float32))
    sums = wide.new_zeros(steps, states.shape[-1]).index_add(0, owner, wide)
    means = sums / wide.new_zeros(steps).index_add(0, owner, torch.ones_like(wide[:, 0]))[:, None]
    return means[batch.step_of] if isinstance(batch, Packed) else means


def check_readable(model: Any, tokens: Tensor) -> None:
    """Raise InputError unless the model's logits are its head applied to its last states, as `score` takes them.

    tokens: [1, ≥ 1] int64 ids to try it on. See `packed_forward.why_not_readable`.
    """
    reason = packed_forward.why_not_readable(model, tokens)
    if reason is not None:
        raise InputError(f"{reason}; training does not support it")


def check_packable(model: Any, tokens: Tensor) -> None:
    """Raise InputError unless a token of a pack sees what it would see in its sequence alone.

    tokens: [1, ≥ 1] int64 ids to try it on. See `packed_forward.why_not_packable`.
    """
    reason = packed_forward.why_not_packable(model, tokens)
    if reason is not None:
        raise InputError(f"training.data.packing: {reason} (accepted: false)")


def _readout(states: Tensor, head: Any, targets: Tensor, logits_at_once: int) -> Tensor:
    """[T] log-probabilities of `targets` ([T]) from the states ([T, d]) that predict them."""
    weight, bias = head.weight, head.bias
    rows = max(1, logits_at_once // weight.shape[0])
    if not weight.requires_grad and (bias is None or not bias.requires_grad):
        found: Tensor = _FrozenReadout.apply(states, weight, bias, targets, rows)  # type: ignore[no-untyped-call]
        return found
    if len(states) <= rows:
        return _logprobs(states, weight, bias, targets)
    # Pieces are computed again in the backward pass: their logits are worth more memory than time.
    pieces = zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(_logprobs, piece, weight, bias, ids, use_reentrant=False) for piece, ids in pieces])


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _logprobs(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return -F.cross_entropy(_wide(F.linear(states, weight, bias)), targets, reduction="none")


class _FrozenReadout(torch.autograd.Function):
    """The readout of a head that is not trained: no logits are kept, and none are computed twice.

    The gradient of a token's log-probability by its state is Wᵀ(onehot − softmax), and the incoming gradient is one
    number per token. So the forward pass computes it from its logits, and the backward pass only scales it.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        slopes = torch.empty_like(states) if wanted else None
        found = []
        for start in range(0, len(states), rows):
            piece = slice(start, start + rows)
            logits = _wide(F.linear(states[piece], weight, bias))
            normaliser = torch.logsumexp(logits, dim=1, keepdim=True)
            ids = targets[piece, None]
            found.append((logits.gather(1, ids) - normaliser).squeeze(1))
            if slopes is not None:
                probabilities = logits.sub_(normaliser).exp_().neg_()
                probabilities.scatter_add_(1, ids, torch.ones_like(ids, dtype=probabilities.dtype))
                slopes[piece] = probabilities.to(weight.dtype) @ weight
        ctx.save_for_backward(slopes)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradients[0][:, None] * slopes).to(slopes.dtype), None, None, None, None

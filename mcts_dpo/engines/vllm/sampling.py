"""This project's sampling inside vLLM, through vLLM's logits processors: the draws of the transformers engine.

vLLM's own seeds are streams of random numbers: a draw depends on how often its generator was used before (a prefix
computed in pieces, a sequence computed again). On a CPU, a seeded request whose prefix is computed in pieces ends the
engine (0.32.0: "CPU Generator does not use offset"). Here a draw is a function of the logits and of (seed, sample,
position) alone. vLLM decodes greedily; the processor draws a token and leaves it as the only possible one. vLLM takes
the log-probabilities that it reports before any processor runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from mcts_dpo.engines.transformers.sampling import sample_tokens, uniforms

KEY = "mcts_dpo_draw"  # the key of a request's `Draw` in SamplingParams.extra_args


@dataclass(frozen=True, slots=True)
class Draw:
    """How one sequence is sampled; see `Request`. after: the token that ends it when its logits are not finite.
    start: how many of its tokens were sent to vLLM with the prefix."""

    seed: int
    sample: int
    temperature: float
    top_p: float
    after: int
    start: int = 0


class DrawProcessor(LogitsProcessor):  # type: ignore[misc]  # the type checker does not see vLLM
    """Draws the tokens of all rows of vLLM's batch that have a `Draw`; keeps it by row, with the tokens so far."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Draw, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """No: it decides which token is the most likely one."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow changes of the batch's rows: removed, added, moved, in this order."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            drawn = (params.extra_args or {}).get(KEY)
            if drawn is None:
                self._rows.pop(index, None)
            else:
                self._rows[index] = (drawn, output)
        for one, other, direction in batch_update.moved:
            moved, replaced = self._rows.pop(one, None), self._rows.pop(other, None)
            if moved is not None:
                self._rows[other] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                self._rows[one] = replaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw a token for every row with a `Draw`; logits [batch, vocabulary], changed in place."""
        if not self._rows:
            return logits
        rows = np.array(sorted(self._rows), np.int64)
        draws = [self._rows[row][0] for row in rows.tolist()]
        position = np.array([self._rows[row][0].start + len(self._rows[row][1]) for row in rows.tolist()], np.int64)
        uniform = uniforms(
            np.array([draw.seed for draw in draws], np.uint64), np.array([draw.sample for draw in draws]), position
        )
        temperature = np.array([draw.temperature for draw in draws], np.float64)
        top_p = np.array([draw.top_p for draw in draws], np.float64)
        if logits.device.type == "cpu":
            tokens, _, normaliser = sample_tokens(logits.numpy(), rows, temperature, top_p, uniform)
            broken = ~np.isfinite(normaliser[rows])
            tokens[broken] = [draw.after for draw, bad in zip(draws, broken, strict=True) if bad]
            chosen = torch.from_numpy(tokens)
        else:
            chosen = draw_on_device(logits[torch.from_numpy(rows).to(logits.device)], temperature, top_p, uniform)
            after = torch.tensor([draw.after for draw in draws], device=logits.device)
            chosen = torch.where(chosen < 0, after, chosen)
        at = torch.from_numpy(rows).to(logits.device)
        logits[at] = -torch.inf
        logits[at, chosen] = 0.0
        return logits


def draw_on_device(
    logits: torch.Tensor,
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> torch.Tensor:
    """`sampling.sample_tokens` in torch operations, so that logits on a GPU stay there.

    logits [rows, vocabulary]; temperature, top_p, uniform [rows]. Returns int64 [rows], −1 for logits with NaN or +inf.
    """
    device = logits.device
    heat = torch.from_numpy(temperature).to(device)[:, None]
    scaled = logits.double() / torch.where(heat > 0, heat, 1.0)
    weight = torch.softmax(scaled, dim=-1)
    if (top_p < 1).any():
        ordered = weight.sort(dim=-1, descending=True).values
        limit = torch.from_numpy(top_p).to(device)[:, None]
        last = torch.searchsorted(ordered.cumsum(dim=-1), limit).clamp(max=weight.shape[-1] - 1)
        least = torch.where(limit < 1, ordered.gather(-1, last), 0.0)
        weight = torch.where(weight >= least, weight, 0.0)
    sums = weight.cumsum(dim=-1)
    target = torch.from_numpy(uniform).to(device)[:, None] * sums[:, -1:]
    drawn = torch.searchsorted(sums, target, right=True)[:, 0]
    positive = torch.arange(weight.shape[-1], device=device) * (weight > 0)
    drawn = torch.minimum(drawn, positive.max(dim=-1).values)
    drawn = torch.where(heat[:, 0] > 0, drawn, logits.argmax(dim=-1))
    return torch.where(torch.isfinite(torch.logsumexp(logits.double(), dim=-1)), drawn, -1)

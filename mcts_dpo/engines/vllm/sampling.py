"""This project's sampling inside vLLM, through vLLM's logits processors: the draws of the transformers engine.

vLLM's own seeds are streams of random numbers: a draw depends on how often its generator was used before (a prefix
computed in pieces, a sequence computed again). On a CPU, a seeded request whose prefix is computed in pieces ends the
engine (0.32.0: "CPU Generator does not use offset"). Here a draw is a function of the logits and of (seed, sample,
position) alone. vLLM decodes greedily; the processor draws a token and leaves it as the only possible one. vLLM takes
the log-probabilities that it reports before any processor runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from mcts_dpo.engines.shaping import PLAIN, Shape
from mcts_dpo.engines.transformers.sampling import Shaping, sample_tokens, uniforms

KEY = "mcts_dpo_draw"  # the key of a request's `Draw` in SamplingParams.extra_args


@dataclass(frozen=True, slots=True)
class Draw:
    """How one sequence is sampled; see `Request`. after: the token that ends it when its logits are not finite.
    start: how many of its tokens were sent to vLLM with the prefix. shape: what else changes the distribution.
    generated: how many tokens at the end of what was sent belong to the solution."""

    seed: int
    sample: int
    temperature: float
    top_p: float
    after: int
    start: int = 0
    shape: Shape = PLAIN
    generated: int = 0

    def shaping(self, prompt: Sequence[int], output: Sequence[int]) -> Shaping:
        """What changes the logits after the tokens that were sent to vLLM and those that were drawn since."""
        if not self.shape.penalises:
            return Shaping(self.shape)
        before = np.array([*prompt, *output], np.int64)
        return Shaping(self.shape, before, before[len(prompt) - self.generated :])


class DrawProcessor(LogitsProcessor):  # type: ignore[misc]  # the type checker does not see vLLM
    """Draws the tokens of all rows of vLLM's batch that have a `Draw`.

    It keeps it by row, with the tokens that were sent and the list of those that were drawn, which grows.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Draw, list[int], list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """No: it decides which token is the most likely one."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow changes of the batch's rows: removed, added, moved, in this order."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            drawn = (params.extra_args or {}).get(KEY)
            if drawn is None:
                self._rows.pop(index, None)
            else:
                self._rows[index] = (drawn, prompt or [], output)
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
        position = np.array([self._rows[row][0].start + len(self._rows[row][2]) for row in rows.tolist()], np.int64)
        uniform = uniforms(
            np.array([draw.seed for draw in draws], np.uint64), np.array([draw.sample for draw in draws]), position
        )
        temperature = np.array([draw.temperature for draw in draws], np.float64)
        top_p = np.array([draw.top_p for draw in draws], np.float64)
        shaping: list[Shaping] | None = None
        if any(draw.shape != PLAIN for draw in draws):
            shaping = [draw.shaping(prompt, output) for draw, prompt, output in map(self._rows.__getitem__, rows)]
        if logits.device.type == "cpu":
            tokens, _, normaliser = sample_tokens(logits.numpy(), rows, temperature, top_p, uniform, shaping)
            broken = ~np.isfinite(normaliser[rows])
            tokens[broken] = [draw.after for draw, bad in zip(draws, broken, strict=True) if bad]
            chosen = torch.from_numpy(tokens)
        else:
            mine = logits[torch.from_numpy(rows).to(logits.device)]
            chosen = draw_on_device(mine, temperature, top_p, uniform, shaping)
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
    shaping: Sequence[Shaping] | None = None,
) -> torch.Tensor:
    """`sampling.sample_tokens` in torch operations, so that logits on a GPU stay there.

    logits [rows, vocabulary]; temperature, top_p, uniform, shaping [rows]. Returns int64 [rows], −1 for logits with NaN
    or +inf.
    """
    device = logits.device
    heat = torch.from_numpy(temperature).to(device)[:, None]
    finite = torch.isfinite(torch.logsumexp(logits.double(), dim=-1))
    if shaping is not None:
        logits = _shaped(logits.clone(), heat, shaping)
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
    return torch.where(finite, drawn, -1)


def _shaped(logits: torch.Tensor, heat: torch.Tensor, shaping: Sequence[Shaping]) -> torch.Tensor:
    """`sampling.shaped` in torch operations, in place. logits [rows, vocabulary]; heat [rows, 1], 0 is greedy."""
    device, vocabulary = logits.device, logits.shape[-1]
    for row, (shape, before, generated) in zip(logits, shaping, strict=True):
        if shape.repetition_penalty != 1:
            at = torch.from_numpy(np.unique(before)).to(device)
            row[at] = torch.where(row[at] < 0, row[at] * shape.repetition_penalty, row[at] / shape.repetition_penalty)
        if shape.presence_penalty:
            row[torch.from_numpy(np.unique(generated)).to(device)] -= shape.presence_penalty
    top_k = torch.tensor([one.shape.top_k or vocabulary for one in shaping], device=device)[:, None]
    min_p = torch.tensor([one.shape.min_p for one in shaping], dtype=torch.float64, device=device)[:, None]
    ordered = logits.sort(dim=-1, descending=True).values
    least = ordered.gather(-1, top_k.clamp(max=vocabulary) - 1)
    too_far = (ordered[:, :1] - logits).double() > -heat * min_p.log()
    return logits.masked_fill_(((logits < least) | too_far) & (heat > 0), -torch.inf)

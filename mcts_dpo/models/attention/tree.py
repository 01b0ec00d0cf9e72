"""Attention within a tree in depth-first order, registered with transformers.

In: queries, keys and values of one pack, and its `Tree`: *q sees k ⇔ k ≤ q < end[k]*. Out: each token's
attention as in its own sequence alone. The [L, L] mask is never part of a batch; the needed parts are built from `end`
on the device, once per forward pass, and shared by the layers.

On a CPU, a block of queries is multiplied with the keys that any of them sees, gathered: in a tree these are few (their
ancestors and their own block), so that time grows with L and not with L². On CUDA, FlexAttention with the same rule
(`flex`); dense masked SDPA where it has no kernel (no Triton or C compiler, float64, heads narrower than 16), and on
other devices. Called without a tree, it is transformers' own SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.attention import flex

NAME = "mcts_dpo_tree"

BLOCK = 64
"""Queries of one tile. Measured on one core at 300 to 5,000 tokens: 48 to 64 are best, 32 and 128 up to 25 % slower.
Against dense masked SDPA, tiles are as fast at 128 tokens and faster above: 1.5 × at 300, 2.5 × at 700, 4.5 × at 1,300,
20 × at 5,000 (forward and backward, 9 heads over 3 key-value heads of width 64, up to 170 visible keys per token)."""

KEPT = 1 << 25
"""Attention probabilities that a layer keeps for its backward pass, in elements; a layer with more computes them
again. Keeping them saves 30 % of attention's time."""


@dataclass(slots=True)
class Tile:
    """A block of queries and the keys that any of them sees.

    start, stop: the queries are the tokens start … stop − 1.
    keys:        [K] int64, ascending.
    bias:        [stop − start, K], 0 where the query sees the key, else −∞; in the dtype that is computed with.
    """

    start: int
    stop: int
    keys: Tensor
    bias: Tensor


@dataclass(slots=True)
class Tree:
    """Which tokens see which in a pack of L tokens, and what is derived from it.

    end:    [L] int64: q sees k ⇔ k ≤ q < end[k].
    depths: [L] int64: tokens above each, by which sliding windows count.
    """

    end: Tensor
    depths: Tensor
    derived: dict[Any, Any] = field(default_factory=dict)

    def sees(self, q: Tensor, k: Tensor, window: int | None) -> Tensor:
        """[broadcast of q and k] bool: whether tokens q see tokens k. window: None, or depths that a token sees,
        itself included.
        """
        return flex.sees(self.end, self.depths, q, k, window)

    def mask(self, window: int | None) -> Tensor:
        """[L, L] bool."""
        if ("mask", window) not in self.derived:
            indices = torch.arange(len(self.end), device=self.end.device)
            self.derived["mask", window] = self.sees(indices[:, None], indices, window)
        found: Tensor = self.derived["mask", window]
        return found

    def tiles(self, window: int | None, dtype: torch.dtype) -> list[Tile]:
        """The blocks of queries, in order, each with its keys."""
        key = ("tiles", window, dtype)
        if key not in self.derived:
            self.derived[key] = [self._tile(start, window, dtype) for start in range(0, len(self.end), BLOCK)]
        found: list[Tile] = self.derived[key]
        return found

    def _tile(self, start: int, window: int | None, dtype: torch.dtype) -> Tile:
        stop = min(start + BLOCK, len(self.end))
        keys = torch.nonzero(self.end[:stop] > start).squeeze(1)
        seen = self.sees(torch.arange(start, stop)[:, None], keys, window)
        if window is not None:
            near = seen.any(0)
            keys, seen = keys[near], seen[:, near]
        return Tile(start, stop, keys, torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf))


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: Tree | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; `tree` reaches it through the model's keyword arguments.

    query [1, heads, L, width]; key, value [1, key-value heads, L, width]. Returns [1, L, heads, width].
    Raises InputError for attention that is more than a softmax over scaled products.
    """
    if tree is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return plain
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unknown:
        raise InputError(f"attention with {unknown[0]} cannot be packed")
    if dropout:
        raise ValueError("what is scored must be the policy: dropout has to be off")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if flex.usable(query):
        found = flex_attention(query, key, value, tree, sliding_window, scale)
    elif query.device.type == "cpu":
        found = tiled_attention(query, key, value, tree, sliding_window, scale)
    else:
        found = dense_attention(query, key, value, tree, sliding_window, scale)
    return found.transpose(1, 2), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def dense_attention(query: Tensor, key: Tensor, value: Tensor, tree: Tree, window: int | None, scale: float) -> Tensor:
    """Masked SDPA. Shapes as in `tree_attention`; returns [1, heads, L, width]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=tree.mask(window), scale=scale)


def tiled_attention(query: Tensor, key: Tensor, value: Tensor, tree: Tree, window: int | None, scale: float) -> Tensor:
    """The same by tiles of queries and the keys that they see.

    Half-precision operands are computed with in float32, which is closer and costs nothing on a CPU: at 128 tokens it
    takes 0.5 of the time of SDPA in bfloat16, at 300 0.6, at 1,300 0.25.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    tiles = tree.tiles(window, wide)
    found: Tensor = _Tiled.apply(query[0].to(wide), key[0].to(wide), value[0].to(wide), tiles, scale)  # type: ignore[no-untyped-call]
    return found[None].to(query.dtype)


class _Tiled(torch.autograd.Function):
    """Softmax attention, a tile at a time. The query heads of one key-value head stand below each other as rows of
    one matrix, so that its keys are read once. Gathered keys are cheap beside their products, and scattering their
    gradients in place spares autograd a full-sized gradient per tile.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: list[Tile], scale: float) -> Tensor:
        heads, length, width = query.shape
        size = sum(tile.bias.numel() for tile in tiles) * heads
        keep = any(ctx.needs_input_grad) and size <= KEPT
        queries = query.view(len(key), -1, length, width)
        out = torch.empty_like(queries)
        kept = []
        for tile in tiles:
            probabilities = _probabilities(queries, key, tile, scale)
            attended = torch.bmm(probabilities, value.index_select(1, tile.keys))
            out[:, :, tile.start : tile.stop] = attended.view(len(key), -1, tile.stop - tile.start, width)
            if keep:
                kept.append(probabilities)
        ctx.tiles, ctx.scale = tiles, scale
        ctx.save_for_backward(query, key, value, out, *kept)
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, *kept = ctx.saved_tensors
        length, width = query.shape[1:]
        queries = query.view(len(key), -1, length, width)
        above = gradients[0].reshape(queries.shape)
        # Σ_k p_k ∂p_k of the softmax, for all queries at once: what each attended to, by its gradient.
        mean = (above * out).sum(-1, keepdim=True)
        by_query = torch.empty_like(queries)
        by_key, by_value = torch.zeros_like(key), torch.zeros_like(value)
        for index, tile in enumerate(ctx.tiles):
            block = slice(tile.start, tile.stop)
            keys, values = key.index_select(1, tile.keys), value.index_select(1, tile.keys)
            rows, slopes = _rows(queries[:, :, block]), _rows(above[:, :, block])
            p = kept[index] if kept else _probabilities(queries, key, tile, ctx.scale)
            by_value.index_add_(1, tile.keys, torch.bmm(p.transpose(1, 2), slopes))
            by_score = torch.bmm(slopes, values.transpose(1, 2)).sub_(_rows(mean[:, :, block])).mul_(p).mul_(ctx.scale)
            by_query[:, :, block] = torch.bmm(by_score, keys).view(len(key), -1, tile.stop - tile.start, width)
            by_key.index_add_(1, tile.keys, torch.bmm(by_score.transpose(1, 2), rows))
        return by_query.view(query.shape), by_key, by_value, None, None


def _rows(blocks: Tensor) -> Tensor:
    """[key-value heads, groups, queries, width] → [key-value heads, groups · queries, width]."""
    return blocks.reshape(len(blocks), -1, blocks.shape[-1])


def _probabilities(queries: Tensor, key: Tensor, tile: Tile, scale: float) -> Tensor:
    """[key-value heads, groups · queries, K]."""
    rows = _rows(queries[:, :, tile.start : tile.stop])
    keys = key.index_select(1, tile.keys).transpose(1, 2)
    bias = tile.bias.repeat(queries.shape[1], 1).expand(len(key), -1, -1)
    return torch.baddbmm(bias, rows, keys, alpha=scale).softmax(-1)


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: Tree,
    window: int | None,
    scale: float,
    *,
    backend: str | None = "inductor",
) -> Tensor:
    """The same with FlexAttention; `flex` says how it was tested. backend: see `flex.attend`."""
    if ("flex", window) not in tree.derived:
        tree.derived["flex", window] = flex.block_mask(tree.end, tree.depths, window)
    return flex.attend(query, key, value, tree.derived["flex", window], scale, backend=backend)

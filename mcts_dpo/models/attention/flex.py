"""FlexAttention (Dong et al. 2024, arXiv 2412.05496) within a tree: its block mask from `end`, and its compiled kernel.

In: `end` and `depths` of a pack, and the queries, keys and values of a layer. Out: what each token attends to. No
[L, L] mask exists at any time: which blocks of 128 × 128 hold something is found from `end` at L / 128 · L places, and
within a block the kernel calls `sees`.

No GPU has run it yet (`make cuda` would). What has been seen with torch 2.13 and Triton 3.7.1: for a described GPU of
compute capability 8.0, 8.6 and 9.0, torch generates the Triton of the forward and backward pass, and Triton compiles it
to machine code that fits the GPU's shared memory (float32, bfloat16; heads of 32 to 256; grouped and not; with and
without a window); and that code for 8.6 and 9.0, in Triton's interpreter on a CPU, gives the values and gradients
of the dense mask (float32: 4e-7 of their norm; bfloat16: 7e-3, once the interpreter's product of bfloat16, which
multiplies their bits, is fixed). Not seen: its speed, its memory, and what only a real device does.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SIDE = 128
"""Queries, and keys, of a block: FlexAttention's own default, which its kernels' tiles divide."""

VARIANTS = 32
"""Kernels that may be compiled for one shape of heads: a pack of one block or of more, with and without a window, and
each way in which queries, keys and values may or may not want gradients. Beyond torch's own limit of 8 a call would
fall back, silently, to the uncompiled reference, which makes [L, L] scores."""


FLOAT32 = {"fwd_BLOCK_M": 32, "fwd_BLOCK_N": 16, "fwd_num_stages": 1}
"""Tiles of the forward kernel in float32. torch's own want 145 KiB of a multiprocessor's shared memory at heads of 128,
which GPUs of compute capability 8.6 and 8.9 do not have, and whatever the GPU more registers than there are."""

SMALL = {
    "fwd_BLOCK_M": 32,
    "fwd_BLOCK_N": 32,
    "fwd_num_stages": 1,
    "bwd_num_stages": 1,
    **dict.fromkeys(("bwd_BLOCK_M1", "bwd_BLOCK_N1", "bwd_BLOCK_M2", "bwd_BLOCK_N2"), 32),
}
"""Tiles in half precision where torch's own do not fit: heads of 256 on GPUs of compute capability 8.6 and 8.9."""


def sees(end: Tensor, depths: Tensor, q: Tensor, k: Tensor, window: int | None) -> Tensor:
    """[broadcast of q and k] bool: whether tokens q see tokens k: k ≤ q < end[k], and k is less than `window` (None:
    any number) tokens above q. end, depths: [L], see `Tree`.
    """
    seen = (k <= q) & (q < end[k])
    return seen if window is None else seen & (depths[q] - depths[k] < window)


def block_mask(end: Tensor, depths: Tensor, window: int | None) -> BlockMask:
    """Which blocks some query sees some key in, and which of them are seen whole; exactly as `create_block_mask` finds
    them in the [L, L] mask. end, depths: [L] integers, see `Tree`.

    A key k is seen by the queries k … end[k] − 1, so by some of a block from `start` to `stop` if k < stop and
    end[k] > start, and by all of it if k ≤ start and end[k] ≥ stop. Those above the block see it through a window if
    the shallowest of its descendants within the block does, or the deepest token of the block.
    """
    from torch.nn.attention.flex_attention import BlockMask

    length, device = len(end), end.device
    blocks = -(-length // SIDE)
    absent = blocks * SIDE - length
    starts = torch.arange(0, blocks * SIDE, SIDE, device=device)[:, None]
    stops = starts + SIDE
    keys = torch.arange(blocks * SIDE, device=device)
    until = F.pad(end, (0, absent))  # what stands behind the end is seen by nobody
    some = (keys < stops) & (until > starts)
    whole = (keys <= starts) & (until >= stops)
    if window is not None:
        depth = F.pad(depths, (0, absent))
        shallowest = depth.view(blocks, SIDE).cummin(1).values
        last = (until.minimum(stops) - starts - 1).clamp(0, SIDE - 1)
        some &= (keys >= starts) | (shallowest.gather(1, last) - depth < window)
        whole &= depth.view(blocks, SIDE).amax(1, keepdim=True) - depth < window
    some_of, whole_of = some.view(blocks, blocks, SIDE).any(-1), whole.view(blocks, blocks, SIDE).all(-1)
    # In 32 bits, in which the kernel counts. It holds these tensors alone: a rule that held the tree, which holds the
    # mask, would keep both until the garbage collector comes.
    near_end, near_depths = end.int(), depths.int()

    def rule(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return sees(near_end, near_depths, q, k, window)

    return BlockMask.from_kv_blocks(
        *_listed(some_of & ~whole_of),
        *_listed(whole_of),
        BLOCK_SIZE=SIDE,
        mask_mod=rule,
        seq_lengths=(length, length),
    )


def _listed(dense: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, columns] bool → [1, 1, rows] int32, how many; [1, 1, rows, columns] int32, which come first."""
    which = dense.int().argsort(dim=-1, descending=True, stable=True)
    return dense.sum(-1, dtype=torch.int32)[None, None], which.int()[None, None]


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float, *, backend: str | None = "inductor"
) -> Tensor:
    """Softmax attention under a `block_mask`. query [1, heads, L, width]; key, value [1, key-value heads, L, width].
    Returns [1, heads, L, width].

    backend: of torch's compiler; None runs the uncompiled reference on any device, which makes the [L, L] scores.
    """
    found: Tensor = _kernel(query.shape[1], key.shape[1], query.shape[3], query.dtype, backend)(
        query,
        key,
        value,
        block_mask=mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        # One kernel for packs of all lengths; short ones would get another, made for decoding.
        kernel_options={"BACKEND": "TRITON", **_tiles(query.dtype, query.shape[3], _shared(query.device))},
    )
    return found


def _tiles(dtype: torch.dtype, width: int, shared: int) -> dict[str, int]:
    """What differs from torch's own tiles. shared: bytes of shared memory that a block of threads may have."""
    if dtype == torch.float32:
        return FLOAT32
    wanted = 49_664 if width <= 64 else 98_816 if width <= 128 else 152_064
    return SMALL if shared < wanted else {}


@cache
def _shared(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 30
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


@cache
def _kernel(heads: int, key_value_heads: int, width: int, dtype: torch.dtype, backend: str | None) -> Any:
    """The attention, compiled once for packs of all lengths; each shape of heads counts its variants by itself."""
    from torch.nn.attention import flex_attention as module

    if backend is None:
        return module.flex_attention
    compiler: Any = torch.compile  # whose annotations lack two of its arguments
    return compiler(
        module.flex_attention,
        dynamic=True,
        backend=backend,
        fullgraph=True,  # what cannot be compiled, or not once more, is an error and not the reference
        recompile_limit=VARIANTS,
        isolate_recompiles=True,
    )


def usable(query: Tensor) -> bool:
    """Whether there is a compiled kernel for these queries: on CUDA, by Triton, which has none for heads narrower than
    16 or in float64, and which wants a C compiler.
    """
    return query.is_cuda and query.shape[-1] >= 16 and query.dtype != torch.float64 and _has_triton()


@cache
def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton()) and any(map(shutil.which, (os.environ.get("CC") or "gcc", "clang")))

"""The block mask against the one that torch finds in the [L, L] mask; and how often the kernel is compiled."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention import flex_attention as torch_flex

from mcts_dpo.models.attention import flex
from mcts_dpo.models.attention.tree import Tree, dense_attention, flex_attention
from mcts_dpo.models.trie import make_trie


def tree_of(length: int, stem: int, seed: int) -> Tree:
    """The first `length` tokens of a random tree whose branches leave in the last eighth of a stem, or behind it."""
    rng = np.random.default_rng(seed)
    trunk = rng.integers(0, 30, stem).astype(np.int32)
    lines = [trunk]
    trie = make_trie(lines)
    while len(trie) < length:
        kept = trunk[: rng.integers(stem - stem // 8, stem + 1)]
        lines += [np.concatenate([kept, rng.integers(0, 30, rng.integers(1, 60)).astype(np.int32)]) for _ in range(8)]
        trie = make_trie(lines)
    return Tree(torch.from_numpy(trie.end[:length]).clamp(max=length), torch.from_numpy(trie.depths[:length].copy()))


def listed(count: Tensor, which: Tensor) -> list[list[int]]:
    """Of each row of blocks, those that count."""
    return [
        sorted(row[:size].tolist()) for row, size in zip(which.flatten(0, 2), count.flatten().tolist(), strict=True)
    ]


@pytest.mark.parametrize("window", [None, 1, 40, 200])
@pytest.mark.parametrize(("length", "stem"), [(1, 1), (128, 9), (129, 100), (384, 300), (700, 40), (900, 600)])
def test_the_block_mask_is_that_of_the_whole_mask(length: int, stem: int, window: int | None) -> None:
    tree = tree_of(length, stem, seed=length)
    found = flex.block_mask(tree.end, tree.depths, window)

    def rule(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return tree.sees(q, k, window)

    expected = torch_flex.create_block_mask(rule, None, None, length, length, device="cpu")
    assert found.shape == expected.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        of = [(getattr(mask, f"{name}_num_blocks"), getattr(mask, f"{name}_indices")) for mask in (found, expected)]
        assert listed(*of[0]) == listed(*of[1]), name
    if (length, window) == (900, None):
        assert found.full_kv_num_blocks is not None
        assert found.full_kv_num_blocks.sum() > 0, "some blocks are seen whole"


def test_a_mask_does_not_outlive_its_tree() -> None:
    """It would, until the garbage collector comes, if they held each other."""
    tree = tree_of(300, 50, seed=0)
    mask = tree.derived["flex", None] = flex.block_mask(tree.end, tree.depths, None)
    gone = weakref.ref(mask)
    gc.disable()
    try:
        del tree, mask
        assert gone() is None
    finally:
        gc.enable()


def test_tiles_are_small_where_torchs_own_do_not_fit() -> None:
    """Found by compiling for each: the shared memory of capability 8.6, 8.0 and 9.0, in bytes."""
    for shared, small in ((101_376, {256}), (166_912, set()), (232_448, set())):
        assert {width for width in (32, 64, 128, 256) if flex._tiles(torch.bfloat16, width, shared)} == small
    assert flex._tiles(torch.float32, 128, 101_376) == flex.FLOAT32


def test_packs_are_compiled_once_for_all_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve kinds of packs, more than torch compiles for unless it is told to: none may fall back to the reference,
    which makes [L, L] scores. The compiler's own part is left out: it is the guards that decide.
    """
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)  # a CPU has no backward pass of its own

    def uncompiled() -> None:
        raise AssertionError("the reference was called")

    monkeypatch.setattr(torch_flex, "setup_compilation_env", uncompiled)  # which it alone does
    flex._kernel.cache_clear()
    kinds = {(learned, window, length > 128) for learned, window, length in packs(0)}
    assert len(kinds) == 12
    compiled = 0
    for seed in range(2):
        before = counters["stats"]["unique_graphs"]
        for learned, window, length in packs(seed):
            tree = tree_of(length, 30, seed)
            generator = torch.Generator().manual_seed(seed)
            given = [torch.randn(1, heads, length, 16, generator=generator) for heads in (4, 2, 2)]
            for one, wants in zip(given, learned, strict=True):
                one.requires_grad_(wants)
            found = flex_attention(*given, tree, window, 0.25, backend="eager")
            expected = dense_attention(*given, tree, window, 0.25)
            assert (found - expected).abs().max() < 1e-5
        compiled = counters["stats"]["unique_graphs"] - before
        assert compiled == (len(kinds) if seed == 0 else 0)


def packs(seed: int) -> list[tuple[tuple[bool, bool, bool], int | None, int]]:
    """Which of queries, keys and values learn (the first layer under LoRA: two of three), the window, the length."""
    return [
        (learned, window, length + 7 * seed)
        for learned in ((False, False, False), (True, True, True), (True, False, True))
        for window in (None, 9 + seed)
        for length in (60, 300)
    ]

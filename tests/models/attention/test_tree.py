from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.attention import tree as attention
from mcts_dpo.models.attention.tree import Tree, dense_attention, flex_attention, tiled_attention, tree_attention
from mcts_dpo.models.trie import make_trie

HEADS, KEY_VALUE_HEADS, WIDTH = 4, 2, 8
SCALE = 0.4
Attend = Callable[[Tensor, Tensor, Tensor, Tree, int | None, float], Tensor]


def random_tree(seed: int, sequences: int = 9) -> tuple[Tree, list[list[int]]]:
    """A tree, and for each node its ancestors and itself, from the root: read off the sequences, not off `end`."""
    rng = np.random.default_rng(seed)
    trie = make_trie([rng.integers(0, 2, rng.integers(1, 12)).astype(np.int32) for _ in range(sequences)])
    lines: dict[int, list[int]] = {}
    for path in trie.paths:
        for depth, node in enumerate(path.tolist()):
            lines[node] = path[: depth + 1].tolist()
    return Tree(torch.from_numpy(trie.end), torch.from_numpy(trie.depths)), [lines[node] for node in range(len(trie))]


def operands(length: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, length, WIDTH) for heads in (HEADS, KEY_VALUE_HEADS, KEY_VALUE_HEADS)]
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def slow_attention(query: Tensor, key: Tensor, value: Tensor, lines: list[list[int]], window: int | None) -> Tensor:
    """One query, one head at a time, over its own line of ancestors."""
    out = torch.zeros_like(query)
    for head in range(HEADS):
        group = head // (HEADS // KEY_VALUE_HEADS)
        for q, line in enumerate(lines):
            seen = line if window is None else line[-window:]
            weights = (key[0, group, seen] @ query[0, head, q] * SCALE).softmax(0)
            out[0, head, q] = weights @ value[0, group, seen]
    return out


def flex(query: Tensor, key: Tensor, value: Tensor, tree: Tree, window: int | None, scale: float) -> Tensor:
    return flex_attention(query, key, value, tree, window, scale, backend=None)


@pytest.fixture
def _flex_learns_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention has its backward pass on every device and refuses tensors of a CPU that want one."""
    from torch.nn.attention import flex_attention as module

    monkeypatch.setattr(module, "_validate_device", lambda *_: None)


@pytest.mark.parametrize("attend", [dense_attention, tiled_attention, flex])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kept", [1 << 25, 0])
@pytest.mark.usefixtures("_flex_learns_on_a_cpu")
def test_each_token_attends_to_its_ancestors_alone(
    attend: Attend, window: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", 5)
    monkeypatch.setattr(attention, "KEPT", kept)
    for seed in range(4):
        tree, lines = random_tree(seed)
        given = operands(len(lines), torch.float64, seed)
        found, expected = attend(*given, tree, window, SCALE), slow_attention(*given, lines, window)
        assert (found - expected).abs().max() < 1e-12
        above = torch.randn_like(expected)
        for one, other in zip(
            torch.autograd.grad(found, given, above), torch.autograd.grad(expected, given, above), strict=True
        ):
            assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("window", [None, 40])
def test_the_block_mask_from_end_leaves_out_what_nobody_sees(window: int | None) -> None:
    """What CUDA's kernel would visit: the blocks in which some query sees some key, and no other."""
    rng = np.random.default_rng(5)
    stem = rng.integers(0, 30, 60).astype(np.int32)
    trie = make_trie([np.concatenate([stem, rng.integers(0, 30, 150).astype(np.int32)]) for _ in range(6)])
    tree = Tree(torch.from_numpy(trie.end), torch.from_numpy(trie.depths))
    length = len(trie)
    given = [one.detach() for one in operands(length, torch.float32)]
    found = flex_attention(*given, tree, window, SCALE, backend=None)
    assert (found - dense_attention(*given, tree, window, SCALE)).abs().max() < 1e-5
    assert (found - tiled_attention(*given, tree, window, SCALE)).abs().max() < 1e-5
    blocks = tree.derived["flex", window].to_dense()[0, 0].bool()
    size = 128
    padded = torch.zeros(len(blocks) * size, len(blocks) * size, dtype=torch.bool)
    padded[:length, :length] = tree.mask(window)
    seen = padded.unflatten(1, (-1, size)).any(-1).unflatten(0, (-1, size)).any(1)
    assert torch.equal(blocks, seen)
    assert not seen.all(), "there is something to leave out"


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling FlexAttention for a CPU needs a C++ compiler")
def test_flex_compiled_for_this_processor_gives_the_same() -> None:
    """The call that CUDA gets, lowered to C++ in place of Triton; forward only, all that a CPU has. Packs differ in
    length and are compiled for once.
    """
    for seed in (1, 2):
        tree, lines = random_tree(seed)
        given = [one.detach() for one in operands(len(lines), torch.float32, seed)]
        found = flex_attention(*given, tree, None, SCALE)
        assert (found - dense_attention(*given, tree, None, SCALE)).abs().max() < 1e-5
        assert (found - tiled_attention(*given, tree, None, SCALE)).abs().max() < 1e-5


def test_tiles_hold_only_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 4)
    tree, lines = random_tree(7, sequences=20)
    for window in (None, 2):
        for tile in tree.tiles(window, torch.float32):
            seen = {
                k for q in range(tile.start, tile.stop) for k in (lines[q] if window is None else lines[q][-window:])
            }
            assert tile.keys.tolist() == sorted(seen)


def test_half_precision_is_computed_in_float32() -> None:
    tree, lines = random_tree(1)
    given = [one.detach().bfloat16() for one in operands(len(lines), torch.float64)]
    found = tiled_attention(*given, tree, None, SCALE)
    assert found.dtype == torch.bfloat16
    expected = slow_attention(*[one.double() for one in given], lines, None)
    assert torch.equal(found, expected.bfloat16()) or (found - expected).abs().max() < 2**-8


@pytest.mark.parametrize(("name", "value"), [("softcap", 20.0), ("s_aux", torch.zeros(HEADS))])
def test_attention_that_is_more_than_a_softmax_is_refused(name: str, value: Any) -> None:
    tree, lines = random_tree(1)
    given = operands(len(lines), torch.float32)
    with pytest.raises(InputError, match=rf"attention with {name} cannot be packed"):
        tree_attention(torch.nn.Module(), *given, None, tree=tree, **{name: value})
    with pytest.raises(ValueError, match="dropout"):
        tree_attention(torch.nn.Module(), *given, None, tree=tree, dropout=0.1)


def test_without_a_tree_it_is_plain_causal_attention() -> None:
    given = operands(6, torch.float64)
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KEY_VALUE_HEADS  # type: ignore[assignment]
    found, _ = tree_attention(module, *given, None, scaling=SCALE)
    expected = slow_attention(*given, [list(range(q + 1)) for q in range(6)], None)
    assert (found - expected.transpose(1, 2)).abs().max() < 1e-12

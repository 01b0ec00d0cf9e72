"""The pool's attention, compiled and in torch operations, against a dense computation in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from mcts_dpo.engines.transformers.attention import Step, gathered_attention, make_pool, pool_attention


class Layer(torch.nn.Module):
    layer_idx = 1


def dense(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, step: Step) -> torch.Tensor:
    out = torch.empty(queries.shape, dtype=torch.float64)
    group = queries.shape[1] // keys.shape[0]
    for i, (row, length) in enumerate(zip(step.rows, step.lengths, strict=True)):
        at = torch.from_numpy(step.tables[row, :length].astype(np.int64))
        for head in range(queries.shape[1]):
            k, v = keys[head // group, at].double(), values[head // group, at].double()
            weights = torch.softmax(k @ queries[i, head].double() * queries.shape[2] ** -0.5, 0)
            out[i, head] = weights @ v
    return out


def random_step(
    seed: int, tokens: int, kv_heads: int, group: int, width: int, longest: int, dtype: torch.dtype
) -> tuple[Step, tuple[torch.Tensor, ...]]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads = kv_heads * group
    config = LlamaConfig(
        hidden_size=heads * 2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=width,
        num_hidden_layers=2,
    )
    positions = longest + tokens + 8
    pool = make_pool(config, positions, dtype, torch.device("cpu"))
    for tensor in pool.keys + pool.values:
        tensor[:, 1:] = torch.randn(kv_heads, positions - 1, width)
    rows = rng.integers(0, 3, tokens).astype(np.int32)
    step = Step(
        pool=pool,
        write=rng.permutation(np.arange(1, positions))[:tokens].astype(np.int64),
        rows=rows,
        lengths=rng.integers(1, longest + 1, tokens).astype(np.int32),
        tables=rng.integers(1, positions, (3, longest)).astype(np.int32),
    )
    query = torch.randn(1, tokens, kv_heads * group, width).to(dtype).transpose(1, 2)
    key, value = (torch.randn(1, kv_heads, tokens, width).to(dtype) for _ in range(2))
    return step, (query, key, value)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 9),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 7),
    width=st.sampled_from([1, 8, 16, 24, 64]),
    longest=st.integers(1, 70),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_both_paths_equal_the_dense_computation(
    seed: int, tokens: int, kv_heads: int, group: int, width: int, longest: int, dtype: torch.dtype
) -> None:
    step, (query, key, value) = random_step(seed, tokens, kv_heads, group, width, longest, dtype)
    out, weights = pool_attention(Layer(), query, key, value, None, step=step)
    assert weights is None
    assert (out.shape, out.dtype) == ((1, tokens, kv_heads * group, width), dtype)
    keys, values = step.pool.keys[1], step.pool.values[1]
    # What this step brought is in the pool, and was seen by all of its tokens.
    assert torch.equal(keys[:, step.write], key[0])
    assert torch.equal(values[:, step.write], value[0])
    queries = query[0].transpose(0, 1)
    expected = dense(queries, keys, values, step)
    tolerance = 2e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out[0].double(), expected, atol=tolerance, rtol=tolerance)
    gathered = gathered_attention(queries, step, 1, width**-0.5)
    torch.testing.assert_close(gathered.double(), expected, atol=tolerance, rtol=tolerance)


def test_without_views_of_the_host_the_torch_path_serves() -> None:
    step, tensors = random_step(0, 6, 2, 2, 16, 20, torch.float32)
    compiled, _ = pool_attention(Layer(), *tensors, None, step=step)
    step.pool.host.clear()
    gathered, _ = pool_attention(Layer(), *tensors, None, step=step)
    torch.testing.assert_close(gathered, compiled, atol=1e-5, rtol=1e-5)


def test_threads_do_not_change_a_bit() -> None:
    step, tensors = random_step(1, 9, 2, 3, 16, 50, torch.float32)
    before = torch.get_num_threads()
    outs = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            outs.append(pool_attention(Layer(), *tensors, None, step=step)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_flat_and_peaked_distributions(scale: float) -> None:
    step, (query, key, value) = random_step(2, 5, 1, 2, 16, 40, torch.float32)
    out, _ = pool_attention(Layer(), query * scale, key, value, None, step=step)
    expected = dense((query * scale)[0].transpose(0, 1), step.pool.keys[1], step.pool.values[1], step)
    torch.testing.assert_close(out[0].double(), expected, atol=1e-4, rtol=1e-4)

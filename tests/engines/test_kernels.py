"""Every compiled loop computes what the same lines compute when Python runs them."""

import numpy as np
import pytest

from mcts_dpo.engines import kernels


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("size", [1, 15, 16, 40])
def test_the_largest_and_the_sum(rng: np.random.Generator, size: int) -> None:
    values = rng.standard_normal(size).astype(np.float32)
    for top in (kernels._top, kernels._top.py_func):
        assert top(values) == values.max()
    for total in (kernels._total, kernels._total.py_func):
        np.testing.assert_allclose(total(values), values.sum(dtype=np.float64), atol=1e-5)


def test_exponentials(rng: np.random.Generator) -> None:
    values = np.concatenate([[0, -1e-4, -200, -np.inf], -80 * rng.random(60)]).astype(np.float32)
    for run in (kernels._exponentials, kernels._exponentials.py_func):
        out = np.empty_like(values)
        run(values, np.float32(0), np.float32(0.9), out, out.view(np.int32))
        np.testing.assert_allclose(out, np.exp(0.9 * values.astype(np.float64)), rtol=1.2e-5, atol=1e-37)
        assert (out[0], out[2], out[3]) == (1, 0, 0)


@pytest.mark.parametrize("half", [False, True])
def test_attention(rng: np.random.Generator, half: bool) -> None:
    compiled = kernels._bfloat16 if half else kernels._float32
    pools = [rng.standard_normal((2, 30, 8)).astype(np.float32) for _ in range(2)]
    if half:
        pools = [(pool.view(np.uint32) >> 16).astype(np.uint16) for pool in pools]
    queries = rng.standard_normal((3, 6, 8)).astype(np.float32)
    tables = rng.integers(0, 30, (2, 13)).astype(np.int32)
    rows, lengths = np.array([1, 0, 1], np.int32), np.array([13, 1, 8], np.int32)
    outs = []
    for run in (compiled, compiled.py_func):
        out = np.zeros_like(queries)
        run(queries, *pools, tables, rows, lengths, np.float32(0.3), out, 0, 3)
        outs.append(out)
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-5)
    assert np.abs(outs[0]).min() > 0


def test_write(rng: np.random.Generator) -> None:
    tokens = rng.standard_normal((2, 3, 4)).astype(np.float32)
    positions = np.array([5, 1, 7])
    for run in (kernels.write, kernels.write.py_func):
        pool = np.zeros((2, 9, 4), np.float32)
        run(tokens, positions, pool)
        assert (pool[:, positions] == tokens).all()
        assert np.count_nonzero(pool) == tokens.size


@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.1])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_normalising_and_drawing(rng: np.random.Generator, temperature: float, top_p: float) -> None:
    logits = (3 * rng.standard_normal((2, 600))).astype(np.float32)
    rows = 24
    arguments = (
        logits,
        np.arange(rows) % 2,
        np.full(rows, temperature),
        np.full(rows, top_p),
        np.linspace(0, 1, rows, endpoint=False),
    )
    drawn, normalisers = [], []
    for normalise, draw in ((kernels._normalise, kernels._draw), (kernels._normalise.py_func, kernels._draw.py_func)):
        tokens, normaliser = np.empty(rows, np.int64), np.empty(2)
        draw(*arguments, tokens, 0, rows)
        normalise(logits, normaliser, 0, 2)
        drawn.append(tokens.tolist())
        normalisers.append(normaliser)
    assert drawn[0] == drawn[1]
    np.testing.assert_allclose(normalisers[0], normalisers[1], atol=1e-6)


def test_the_nucleus_threshold(rng: np.random.Generator) -> None:
    values = np.sort(rng.standard_normal(50)).astype(np.float32)[::-1].copy()
    weight = np.exp(values - values[0])
    for wanted in (0.2, 5.0, float(weight.sum()) + 1):
        reached = np.cumsum(weight, dtype=np.float64)
        expected = values[min(int(np.searchsorted(reached, wanted)), 49)]
        for run in (kernels._nucleus_threshold, kernels._nucleus_threshold.py_func):
            least = run(values, weight, values[0], 1.0, wanted)
            assert least == expected if wanted <= weight.sum() else least <= expected
    assert kernels._bin.py_func(np.float64(1e9)) == kernels._bin(np.float64(1e9)) == kernels._BINS

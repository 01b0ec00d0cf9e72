"""Every compiled loop computes what the same lines compute when Python runs them."""

import numpy as np
import pytest

from mcts_dpo.engines.transformers import kernels


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("size", [1, 15, 16, 40])
def test_the_largest(rng: np.random.Generator, size: int) -> None:
    values = rng.standard_normal(size).astype(np.float32)
    for top in (kernels._top, kernels._top.py_func):
        assert top(values) == values.max()
        assert top(np.append(values, np.float32(np.nan))) == values.max()


def test_exponentials(rng: np.random.Generator) -> None:
    values = np.concatenate([[0, -1e-4, -200, -np.inf], -80 * rng.random(60)]).astype(np.float32)
    for count in (64, 50):
        for run in (kernels._exponentials, kernels._exponentials.py_func):
            out = np.ones(64, np.float32)
            total = run(values[:count], np.float32(0), np.float32(0.9), out)
            expected = np.exp(0.9 * values[:count].astype(np.float64))
            np.testing.assert_allclose(out[:count], expected, rtol=1.2e-5, atol=1e-37)
            assert total == pytest.approx(expected.sum(), rel=1e-5)
            assert (out[0], out[2], out[3]) == (1, 0, 0)
            assert not out[count:].any()
    values[5] = np.nan
    for run in (kernels._exponentials, kernels._exponentials.py_func):
        assert np.isnan(run(values, np.float32(0), np.float32(1), out))


@pytest.mark.parametrize("half", [False, True])
def test_attention(rng: np.random.Generator, half: bool) -> None:
    pools = [rng.standard_normal((2, 60, 24)).astype(np.float32) for _ in range(2)]
    if half:
        pools = [(pool.view(np.uint32) >> 16).astype(np.uint16) for pool in pools]
    tokens = kernels._WINDOW + 5
    queries = rng.standard_normal((tokens, 6, 24)).astype(np.float32)
    tables = rng.integers(0, 60, (3, 40)).astype(np.int32)
    tables[1, :20] = tables[0, :20]
    rows = np.sort(rng.integers(0, 3, tokens)).astype(np.int32)
    lengths = rng.integers(1, 40, tokens).astype(np.int32)
    outs = []
    for run in (kernels._attend, kernels._attend.py_func):
        out = np.zeros_like(queries)
        run(queries, *pools, tables, rows, lengths, np.float32(0.3), out, 0, tokens)
        outs.append(out)
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-5)
    assert np.abs(outs[0]).min() > 0
    for i in range(tokens):  # no token's numbers depend on its neighbours
        kernels._attend(queries, *pools, tables, rows, lengths, np.float32(0.3), out, i, i + 1)
    assert (out == outs[0]).all()


def test_the_parts_of_attention(rng: np.random.Generator) -> None:
    tables = np.array([[*range(1, 25)], [*range(1, 19), *range(30, 36)]], np.int32)
    rows, lengths = np.array([0, 0, 1, 0, 1], np.int32), np.array([20, 24, 22, 3, 24], np.int32)
    pool = rng.standard_normal(40 * 20).astype(np.float32)
    query, weight = rng.standard_normal(32).astype(np.float32), rng.random(16).astype(np.float32)
    for parts in zip(
        *((f, f.py_func) for f in (kernels._reuse, kernels._fill, kernels._scores, kernels._gather)), strict=True
    ):
        reuse, fill, scores, gather = parts
        shared = np.full((2, 5), 99, np.uint8)
        reuse(tables, rows, lengths, 0, 5, shared)
        assert shared.tolist() == [[0, 16, 16, 3, 16], [0, 4, 2, 99, 6]]
        tile = np.zeros(16 * 32, np.float32)
        fill(tile, 32, 2, 7, tables, 1, 16, pool, 0, 20)
        held = tile.reshape(16, 32)
        assert (held[2:7, :20] == pool.reshape(40, 20)[tables[1, 18:23]]).all()
        assert not held[:, 20:].any()
        assert not held[[0, 1, 7]].any()
        out = np.zeros(32, np.float32)
        scores(query, 0, tile, 7, 32, out, 4)
        np.testing.assert_allclose(out[4:11], held[:7] @ query, atol=1e-5)
        out = np.ones(40, np.float32)
        gather(weight, 3, tile, 7, 32, out, 8)
        np.testing.assert_allclose(out[8:], 1 + weight[3:10] @ held[:7], atol=1e-5)
        assert (out[:8] == 1).all()


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

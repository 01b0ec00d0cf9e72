"""Drawing tokens against plain numpy: normaliser, inverse CDF, nucleus, uniform numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcts_dpo.engines.transformers.sampling import sample_tokens, uniforms


def draw(
    logits: NDArray[np.float32], uniform: list[float], temperature: float = 1.0, top_p: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    rows = len(uniform)
    return sample_tokens(
        logits,
        np.zeros(rows, np.int64),
        np.full(rows, temperature),
        np.full(rows, top_p),
        np.asarray(uniform, np.float64),
    )


def reference(logits: NDArray[np.float32], temperature: float, top_p: float) -> NDArray[np.float64]:
    """Tempered, cut, renormalised probabilities, in float64 and by sorting everything."""
    scaled = logits.astype(np.float64) / temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    if top_p == 1:
        return probabilities
    order = np.argsort(-probabilities, kind="stable")
    needed = int(np.searchsorted(np.cumsum(probabilities[order]), top_p * (1 - 1e-6))) + 1
    least = probabilities[order[min(needed, len(order)) - 1]]
    kept = np.where(probabilities >= least, probabilities, 0)
    return kept / kept.sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.sampled_from([1, 2, 17, 511, 512, 513, 3000]),
    spread=st.sampled_from([0.1, 3.0, 20.0]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
)
def test_draws_follow_the_inverse_cdf(
    seed: int, vocabulary: int, spread: float, temperature: float, top_p: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((1, vocabulary)) * spread).astype(np.float32)
    uniform = np.concatenate([rng.random(30), [0.0, 1 - 2.0**-53]])
    tokens, logprobs, normaliser = draw(logits, uniform.tolist(), temperature, top_p)
    probabilities = reference(logits[0], temperature, top_p)
    cumulated = np.cumsum(probabilities)
    for u, token in zip(uniform, tokens, strict=True):
        assert probabilities[token] > 0
        assert cumulated[token] - probabilities[token] - 1e-5 <= u <= cumulated[token] + 1e-5
    plain = logits[0].astype(np.float64)
    log_sum = np.log(np.exp(plain - plain.max()).sum()) + plain.max()
    np.testing.assert_allclose(normaliser, [log_sum], rtol=1e-6, atol=1e-6)
    assert (logprobs <= 0).all()
    np.testing.assert_allclose(logprobs, plain[tokens] - log_sum, atol=2e-5)


def test_greedy_takes_the_first_of_the_largest() -> None:
    logits = np.array([[0.0, 3.0, 3.0, -1.0]], np.float32)
    tokens, _, _ = draw(logits, [0.0, 0.99], temperature=0.0, top_p=0.5)
    assert tokens.tolist() == [1, 1]


def test_rows_draw_from_their_source() -> None:
    logits = np.full((3, 4), -50.0, np.float32)
    logits[[0, 1, 2], [3, 0, 2]] = 0
    ones = np.ones(5)
    tokens, logprobs, _ = sample_tokens(logits, np.array([2, 0, 1, 1, 2]), ones, ones, np.full(5, 0.5))
    assert tokens.tolist() == [2, 3, 0, 0, 2]
    np.testing.assert_allclose(logprobs, 0, atol=1e-6)


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0]], np.float32)
    tokens, _, normaliser = draw(logits, np.linspace(0, 1, 101, endpoint=False).tolist())
    assert set(tokens.tolist()) == {1, 3}
    assert np.isfinite(normaliser).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_row_shows_in_its_normaliser_only(bad: float) -> None:
    logits = np.zeros((3, 700), np.float32)
    logits[1, 600] = bad
    ones = np.ones(3)
    for top_p in (1.0, 0.5):
        _, _, normaliser = sample_tokens(logits, np.arange(3), ones, ones * top_p, ones / 2)
        assert np.isfinite(normaliser).tolist() == [True, False, True]


def test_frequencies_of_many_samples() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    count = 20_000
    u = uniforms(np.full(count, 7, np.uint64), np.arange(count), np.zeros(count, np.int64))
    tokens, _, _ = draw(logits, u.tolist())
    shares = np.bincount(tokens, minlength=4) / count
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=4 * 0.5 / count**0.5)


def test_uniform_numbers_are_independent_in_each_argument() -> None:
    size = 300
    seeds, samples, positions = (grid.ravel() for grid in np.meshgrid([3, 4], np.arange(size), np.arange(size)))
    u = uniforms(seeds.astype(np.uint64), samples, positions)
    assert ((u >= 0) & (u < 1)).all()
    assert len(np.unique(u)) == len(u)
    cube = u.reshape(size, 2, size)
    assert abs(u.mean() - 0.5) < 0.004
    for one, other in [(cube[:, 0], cube[:, 1]), (cube[1:], cube[:-1]), (cube[..., 1:], cube[..., :-1])]:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015


def test_the_uniform_numbers_never_change() -> None:
    """Stored trees name seeds: another hash would be another run."""
    seeds = np.array([0, 1, 2**63 - 1], np.uint64)
    first = uniforms(seeds, np.array([0, 2, 5]), np.array([0, 7, 300]))
    assert first.tolist() == uniforms(seeds, np.array([0, 2, 5]), np.array([0, 7, 300])).tolist()
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    for seed, sample, position, u in zip([0, 1, 2**63 - 1], [0, 2, 5], [0, 7, 300], first, strict=True):
        state = mix(seed + golden & mask)
        state = mix(state ^ (sample * golden + golden & mask))
        state = mix(state ^ (position * golden + golden & mask))
        assert u == (state >> 11) / 2**53

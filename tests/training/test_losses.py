from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.losses import negative_log_likelihood, step_dpo, weighted_mean

nats = st.floats(-30, 0, allow_nan=False)
smoothings = st.floats(0, 0.49, allow_nan=False)
betas = st.floats(0.01, 3, allow_nan=False)
pair = st.tuples(nats, nats, nats, nats, smoothings)


def columns(pairs: Sequence[tuple[float, ...]]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True)]


def dpo_by_the_book(pairs: list[tuple[float, ...]], beta: float) -> NDArray[np.float64]:
    """−(1−α) log σ(βh) − α log σ(−βh), with log σ(z) = −log(1 + e^−z) as log-add-exp."""
    chosen, rejected, ref_chosen, ref_rejected, alpha = np.array(pairs).T
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    losses: NDArray[np.float64] = (1 - alpha) * np.logaddexp(0, -z) + alpha * np.logaddexp(0, z)
    return losses


@given(st.lists(pair, min_size=1, max_size=8), betas)
@settings(max_examples=80, deadline=None)
def test_step_dpo_equals_the_numpy_form(pairs: list[tuple[float, ...]], beta: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected, alpha = columns(pairs)
    found = step_dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta, smoothing=alpha)
    np.testing.assert_allclose(found.losses.numpy(), dpo_by_the_book(pairs, beta), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.chosen_rewards.numpy(), beta * (chosen - ref_chosen).numpy(), rtol=1e-12)
    np.testing.assert_allclose(found.rejected_rewards.numpy(), beta * (rejected - ref_rejected).numpy(), rtol=1e-12)


@given(st.lists(pair, min_size=1, max_size=5), betas)
@settings(max_examples=40, deadline=None)
def test_step_dpo_gradient_equals_finite_differences(pairs: list[tuple[float, ...]], beta: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected, alpha = columns(pairs)
    chosen.requires_grad_(True)
    rejected.requires_grad_(True)
    torch.autograd.backward(
        step_dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta, smoothing=alpha).losses.sum()
    )
    step = 1e-5
    for place, tensor in ((0, chosen), (1, rejected)):
        moved = [np.array(pairs), np.array(pairs)]
        moved[0][:, place] += step
        moved[1][:, place] -= step
        up, down = (dpo_by_the_book([tuple(row) for row in one], beta) for one in moved)
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), (up - down) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.45])
def test_step_dpo_at_the_reference_is_ln_2(alpha: float) -> None:
    logprobs = torch.tensor([-3.0, -0.5, -20.0])
    found = step_dpo(logprobs, logprobs - 1, logprobs, logprobs - 1, beta=0.1, smoothing=alpha)
    assert torch.allclose(found.losses, torch.full((3,), math.log(2)), rtol=1e-7)


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_smoothing_puts_the_least_loss_at_a_finite_margin(alpha: float) -> None:
    h = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    zero = torch.zeros_like(h)
    losses = step_dpo(h, zero, zero, zero, beta=1.0, smoothing=alpha).losses
    assert h[losses.argmin()].item() == pytest.approx(math.log((1 - alpha) / alpha), abs=0.005)


def test_step_dpo_stays_finite_where_the_sigmoid_saturates() -> None:
    h = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    zero = torch.zeros(4)
    found = step_dpo(h, zero, zero, zero, beta=1.0, smoothing=torch.tensor([0.0, 0.1, 0.1, 0.0]))
    torch.autograd.backward(found.losses.sum())
    assert torch.allclose(found.losses, torch.tensor([1e4, 180.0, 20.0, 0.0]))
    assert h.grad is not None
    assert torch.allclose(h.grad, torch.tensor([-1.0, -0.9, 0.1, 0.0]))


@given(st.lists(st.tuples(nats, st.floats(0.1, 5)), min_size=2, max_size=10), st.data())
@settings(max_examples=50, deadline=None)
def test_parts_add_up_to_the_mean_over_the_whole(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    values, weights = columns(rows)
    cut = data.draw(st.integers(1, len(rows) - 1))
    total = float(weights.sum())
    parts = [negative_log_likelihood(values[s], weights[s], total) for s in (slice(None, cut), slice(cut, None))]
    whole = -np.average(values.numpy(), weights=weights.numpy())
    assert sum(part.item() for part in parts) == pytest.approx(whole, rel=1e-12, abs=1e-12)


def test_a_mean_without_weights_is_the_plain_mean() -> None:
    assert weighted_mean(torch.tensor([1.0, 2.0, 6.0])).item() == 3.0
    assert negative_log_likelihood(torch.tensor([-1.0, -3.0])).item() == 2.0

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.training.objectives.common import length_normalised
from mcts_dpo.training.objectives.hinge import hinge
from mcts_dpo.training.objectives.ipo import ipo
from mcts_dpo.training.objectives.mmpo import mmpo
from mcts_dpo.training.objectives.odpo import odpo
from mcts_dpo.training.objectives.orpo import orpo
from mcts_dpo.training.objectives.robust_dpo import robust_dpo
from mcts_dpo.training.objectives.simpo import simpo
from mcts_dpo.training.objectives.step_dpo import step_dpo

Array = NDArray[np.float64]
nats = st.floats(-30, 0, allow_nan=False)
smoothings = st.floats(0, 0.49, allow_nan=False)
betas = st.floats(0.01, 3, allow_nan=False)
pair = st.tuples(nats, nats, nats, nats, smoothings)


def columns(pairs: Sequence[tuple[float, ...]]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True)]


def dpo_by_the_book(pairs: list[tuple[float, ...]], beta: float) -> Array:
    """−(1−α) log σ(βh) − α log σ(−βh), with log σ(z) = −log(1 + e^−z) as log-add-exp."""
    chosen, rejected, ref_chosen, ref_rejected, alpha = np.array(pairs).T
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    losses: Array = (1 - alpha) * np.logaddexp(0, -z) + alpha * np.logaddexp(0, z)
    return losses


@given(st.lists(pair, min_size=1, max_size=8), betas)
@settings(max_examples=80, deadline=None)
def test_step_dpo_equals_the_numpy_form(pairs: list[tuple[float, ...]], beta: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected, alpha = columns(pairs)
    found = step_dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta, smoothing=alpha)
    np.testing.assert_allclose(found.numpy(), dpo_by_the_book(pairs, beta), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.45])
def test_step_dpo_at_the_reference_is_ln_2(alpha: float) -> None:
    logprobs = torch.tensor([-3.0, -0.5, -20.0])
    found = step_dpo(logprobs, logprobs - 1, logprobs, logprobs - 1, beta=0.1, smoothing=alpha)
    assert torch.allclose(found, torch.full((3,), math.log(2)), rtol=1e-7)


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_smoothing_puts_the_least_loss_at_a_finite_margin(alpha: float) -> None:
    h = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    zero = torch.zeros_like(h)
    losses = step_dpo(h, zero, zero, zero, beta=1.0, smoothing=alpha)
    assert h[losses.argmin()].item() == pytest.approx(math.log((1 - alpha) / alpha), abs=0.005)


def test_step_dpo_stays_finite_where_the_sigmoid_saturates() -> None:
    h = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    zero = torch.zeros(4)
    found = step_dpo(h, zero, zero, zero, beta=1.0, smoothing=torch.tensor([0.0, 0.1, 0.1, 0.0]))
    torch.autograd.backward(found.sum())
    assert torch.allclose(found, torch.tensor([1e4, 180.0, 20.0, 0.0]))
    assert h.grad is not None
    assert torch.allclose(h.grad, torch.tensor([-1.0, -0.9, 0.1, 0.0]))


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


MARGIN = np.array([0.3, 1.0, 2.0, 0.7, 1.6])
LENGTHS = np.array([[1, 4, 9, 2, 6], [3, 5, 2, 7, 1]])

# Every loss beside its formula in NumPy: (h, chosen, rejected) → losses, for β = 0.7.
FORMS: dict[str, tuple[Callable[..., Tensor], Callable[[Array, Array, Array], Array]]] = {
    "step_dpo": (lambda *x: step_dpo(*x, beta=0.7), lambda h, w, r: -np.log(sigmoid(0.7 * h))),
    "conservative": (
        lambda *x: step_dpo(*x, beta=0.7, smoothing=0.2),
        lambda h, w, r: -0.8 * np.log(sigmoid(0.7 * h)) - 0.2 * np.log(sigmoid(-0.7 * h)),
    ),
    "robust_dpo": (
        lambda *x: robust_dpo(*x, beta=0.7, flip_rate=0.2),
        lambda h, w, r: (-0.8 * np.log(sigmoid(0.7 * h)) + 0.2 * np.log(sigmoid(-0.7 * h))) / (1 - 2 * 0.2),
    ),
    "ipo": (lambda *x: ipo(*x, beta=0.7), lambda h, w, r: (h - 1 / (2 * 0.7)) ** 2),
    "hinge": (lambda *x: hinge(*x, beta=0.7, delta=0.8), lambda h, w, r: np.maximum(0, 0.8 - 0.7 * h)),
    "odpo": (
        lambda *x: odpo(*x, beta=0.7, offset=torch.tensor(0.5 * MARGIN)),
        lambda h, w, r: -np.log(sigmoid(0.7 * h - 0.5 * MARGIN)),
    ),
    "mmpo": (
        lambda *x: mmpo(*x, beta=0.7, margin=torch.tensor(MARGIN), gamma=1.5),
        lambda h, w, r: (
            -sigmoid(1.5 * MARGIN) * np.log(sigmoid(0.7 * h))
            - (1 - sigmoid(1.5 * MARGIN)) * np.log(1 - sigmoid(0.7 * h))
        ),
    ),
    "simpo": (
        lambda w, r, *_: simpo(w, r, *torch.tensor(LENGTHS), beta=2.0, gamma=0.6),
        lambda h, w, r: -np.log(sigmoid(2.0 * w / LENGTHS[0] - 2.0 * r / LENGTHS[1] - 0.6)),
    ),
    "orpo": (
        lambda w, r, *_: orpo(w, r, *torch.tensor(LENGTHS)),
        lambda h, w, r: -np.log(sigmoid(np.log(odds(w / LENGTHS[0])) - np.log(odds(r / LENGTHS[1])))),
    ),
}


def odds(mean: Array) -> Array:
    return np.exp(mean) / (1 - np.exp(mean))


def drawn(seed: int = 0) -> list[Tensor]:
    """Chosen, rejected, and the same under the reference: five of each, well below 0."""
    return [torch.tensor(row) for row in np.random.default_rng(seed).uniform(-9, -0.5, (4, 5))]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_every_loss_equals_its_formula(name: str, seed: int) -> None:
    loss, formula = FORMS[name]
    inputs = drawn(seed)
    chosen, rejected, ref_chosen, ref_rejected = (one.numpy() for one in inputs)
    expected = formula((chosen - ref_chosen) - (rejected - ref_rejected), chosen, rejected)
    np.testing.assert_allclose(loss(*inputs).numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_every_gradient_equals_finite_differences(name: str) -> None:
    chosen, rejected, *reference = drawn()
    inputs = (chosen.requires_grad_(True), rejected.requires_grad_(True))
    assert torch.autograd.gradcheck(lambda w, r: FORMS[name][0](w, r, *reference), inputs)


@pytest.mark.parametrize("name", FORMS)
def test_every_loss_lifts_the_chosen_and_lowers_the_rejected_at_the_start(name: str) -> None:
    chosen, rejected, *_ = (one.requires_grad_(True) for one in drawn())
    torch.autograd.backward(FORMS[name][0](chosen, rejected, chosen.detach(), rejected.detach()).sum())
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_dpo", math.log(2)),
        ("conservative", math.log(2)),
        ("robust_dpo", math.log(2)),
        ("mmpo", math.log(2)),
        ("ipo", (1 / 1.4) ** 2),
        ("hinge", 0.8),
    ],
)
def test_what_every_loss_is_at_the_reference(name: str, value: float) -> None:
    chosen, rejected, *_ = drawn()
    found = FORMS[name][0](chosen, rejected, chosen, rejected)
    assert torch.allclose(found, torch.full((5,), value, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in FORMS if name not in ("simpo", "orpo")])
def test_every_loss_stays_finite_where_it_saturates(name: str) -> None:
    h = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    zero = torch.zeros(5)
    found = FORMS[name][0](h, zero, zero, zero)
    torch.autograd.backward(found.sum())
    assert h.grad is not None
    assert found.isfinite().all()
    assert h.grad.isfinite().all()


def test_where_the_losses_come_to_rest() -> None:
    h = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    zero = torch.zeros_like(h)
    margin = torch.full_like(h, 1.2)
    at = lambda found: h[found.argmin()].item()  # noqa: E731
    assert at(mmpo(h, zero, zero, zero, beta=0.5, margin=margin, gamma=1.5)) == pytest.approx(1.2 * 1.5 / 0.5, abs=0.01)
    assert at(ipo(h, zero, zero, zero, beta=0.25)) == pytest.approx(2.0, abs=0.01)
    assert not hinge(h, zero, zero, zero, beta=2.0, delta=3.0)[h >= 1.5].any()


@given(st.floats(0, 0.45), st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_the_robust_loss_is_unbiased_under_flipped_labels(rate: float, h: float) -> None:
    """(1 − ε) ℓ(right way round) + ε ℓ(flipped) is DPO's loss on the true label."""
    one, zero = torch.tensor([h], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    right = robust_dpo(one, zero, zero, zero, beta=1.0, flip_rate=rate)
    flipped = robust_dpo(zero, one, zero, zero, beta=1.0, flip_rate=rate)
    truth = step_dpo(one, zero, zero, zero, beta=1.0)
    torch.testing.assert_close((1 - rate) * right + rate * flipped, truth)


def test_orpo_is_finite_for_certain_and_for_impossible_steps() -> None:
    chosen = torch.tensor([0.0, -1e-9, -1e4], requires_grad=True)
    rejected = torch.tensor([-1e4, 0.0, -1e-12], requires_grad=True)
    length = torch.tensor([3, 3, 3])
    found = orpo(chosen, rejected, length, length)
    torch.autograd.backward(found.sum())
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert found.isfinite().all()
    assert chosen.grad.isfinite().all()
    assert rejected.grad.isfinite().all()


def test_length_normalised_dpo_looks_at_the_mean_per_token() -> None:
    chosen, rejected, ref_chosen, ref_rejected = drawn()
    long, short = torch.tensor(LENGTHS)
    found = step_dpo(
        length_normalised(chosen, long),
        length_normalised(rejected, short),
        length_normalised(ref_chosen, long),
        length_normalised(ref_rejected, short),
        beta=5.0,
    )
    h = (chosen - ref_chosen).numpy() / LENGTHS[0] - (rejected - ref_rejected).numpy() / LENGTHS[1]
    np.testing.assert_allclose(found.numpy(), np.logaddexp(0, -5.0 * h), rtol=1e-12)

"""Losses over lists against loops over their siblings; ragged lists, ties, saturation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from mcts_dpo.training.objectives.kto import kto, sibling_kl
from mcts_dpo.training.objectives.lipo import lambda_loss
from mcts_dpo.training.objectives.sibling_distillation import sibling_distillation
from mcts_dpo.training.objectives.step_dpo import step_dpo
from mcts_dpo.training.objectives.tree_policy_gradient import tree_policy_gradient

SIZES = (4, 2, 3)


@dataclass(frozen=True)
class Lists:
    """Three ragged lists; in the places that hold no sibling stands what would be noticed: nan."""

    policy: Tensor
    reference: Tensor
    values: Tensor
    counts: Tensor
    present: Tensor

    def rows(self) -> list[tuple[np.ndarray, ...]]:
        """Per list: policy, reference, values and counts of its siblings alone."""
        columns = (self.policy, self.reference, self.values, self.counts)
        return [tuple(column.detach()[row, :size].numpy() for column in columns) for row, size in enumerate(SIZES)]


def lists(seed: int = 0) -> Lists:
    rng = np.random.default_rng(seed)
    present = torch.arange(4)[None] < torch.tensor(SIZES)[:, None]
    values = np.round(-np.sort(-rng.uniform(-1, 1, (3, 4))), 1)

    def ragged(array: np.ndarray) -> Tensor:
        return torch.tensor(array).masked_fill(~present, math.nan)

    policy, reference = rng.uniform(-6, -0.5, (2, 3, 4))
    counts = rng.integers(1, 6, (3, 4)).astype(np.float64)
    return Lists(ragged(policy), ragged(reference), ragged(values), ragged(counts), present)


def lambda_by_the_book(
    policy: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray, beta: float
) -> float:
    scores = weights * beta * (policy - reference)
    rank = {sibling: place + 1 for place, sibling in enumerate(np.argsort(-scores, kind="stable").tolist())}
    total = share = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if values[i] > values[j]:
                gain = abs(2 ** values[i] - 2 ** values[j])
                weight = gain * abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
                total += weight * math.log1p(math.exp(-(scores[i] - scores[j])))
                share += weight
    return total / share if share else 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("adaptive", [False, True])
def test_lambda_loss_equals_its_formula(seed: int, adaptive: bool) -> None:
    data = lists(seed)
    weights = torch.tensor(np.random.default_rng(seed).uniform(1, 2, (3, 4))) if adaptive else None
    found = lambda_loss(data.policy, data.reference, data.values, data.present, beta=0.7, step_weights=weights)
    ones = torch.ones(3, 4, dtype=torch.float64)
    expected = [
        lambda_by_the_book(
            policy, reference, values, (ones if weights is None else weights)[row, : len(values)].numpy(), 0.7
        )
        for row, (policy, reference, values, _) in enumerate(data.rows())
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_a_list_of_two_is_a_pair_and_a_list_of_equals_teaches_nothing() -> None:
    chosen, rejected, ref_chosen, ref_rejected = torch.tensor([[-1.0], [-2.0], [-1.5], [-1.2]], dtype=torch.float64)
    policy, reference = torch.stack([chosen, rejected], 1), torch.stack([ref_chosen, ref_rejected], 1)
    present = torch.ones(1, 2, dtype=torch.bool)
    value = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    as_list = lambda_loss(policy, reference, value, present, beta=0.4)
    as_pair = step_dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.4)
    torch.testing.assert_close(as_list, as_pair)
    policy.requires_grad_(True)
    equals = lambda_loss(policy, reference, torch.zeros_like(value), present, beta=0.4)
    torch.autograd.backward(equals.sum())
    assert equals.item() == 0.0
    assert policy.grad is not None
    assert not policy.grad.any()


def test_a_ranking_is_ln_2_at_the_reference() -> None:
    data = lists()
    found = lambda_loss(data.reference, data.reference, data.values, data.present, beta=0.3)
    assert torch.allclose(found, torch.full((3,), math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tau", [0.1, 0.5, 5.0])
def test_distillation_equals_its_formula(seed: int, tau: float) -> None:
    data = lists(seed)
    plain = sibling_distillation(data.policy, data.values, data.counts, data.present, tau=tau)
    among = sibling_distillation(data.policy, data.values, data.counts, data.present, tau=tau, renormalise=True)
    for row, (policy, _, values, counts) in enumerate(data.rows()):
        target = counts * np.exp(values / tau)
        target /= target.sum()
        assert plain[row].item() == pytest.approx(-(target * policy).sum())
        shared = np.exp(policy) / np.exp(policy).sum()
        assert among[row].item() == pytest.approx(-(target * np.log(shared)).sum())


def test_a_policy_at_its_target_has_no_gradient_among_siblings() -> None:
    data = lists()
    target = (data.counts * (data.values / 0.5).exp()).log().requires_grad_(True)
    found = sibling_distillation(target, data.values, data.counts, data.present, tau=0.5, renormalise=True)
    torch.autograd.backward(found.sum())
    assert target.grad is not None
    assert target.grad[data.present].abs().max() < 1e-12
    assert not target.grad[~data.present].any()


@pytest.mark.parametrize("seed", range(3))
def test_policy_gradient_equals_its_formula(seed: int) -> None:
    data = lists(seed)
    found = tree_policy_gradient(
        data.policy, data.reference, data.values, data.counts, data.present, advantage_clip=0.5, ratio_clip=0.2
    )
    for row, (policy, reference, values, counts) in enumerate(data.rows()):
        advantage, ratio = np.clip(values, -0.5, 0.5), np.exp(policy - reference)
        surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
        assert found[row].item() == pytest.approx(-(counts / counts.sum() * surrogate).sum())


def test_policy_gradient_stops_at_the_clip_and_begins_as_reinforce() -> None:
    counts = torch.ones(1, 4, dtype=torch.float64)
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    reference = torch.full((1, 4), -2.0, dtype=torch.float64)
    change = torch.tensor([[0.1, 0.2, -0.1, -0.3]], dtype=torch.float64)  # log 1.2 = 0.18, log 0.8 = −0.22
    present = torch.ones(1, 4, dtype=torch.bool)
    for policy, expected in (
        ((reference + change), [-math.exp(0.1) / 4, 0.0, math.exp(-0.1) / 4, 0.0]),
        (reference.clone(), [-0.25, -0.25, 0.25, 0.25]),
    ):
        policy.requires_grad_(True)
        loss = tree_policy_gradient(policy, reference, advantage, counts, present, advantage_clip=1.0, ratio_clip=0.2)
        torch.autograd.backward(loss.sum())
        assert policy.grad is not None
        np.testing.assert_allclose(policy.grad.numpy(), [expected])


@pytest.mark.parametrize("seed", range(3))
def test_kto_and_its_reference_point_equal_their_formulas(seed: int) -> None:
    data = lists(seed)
    drift = sibling_kl(data.policy, data.reference, data.counts, data.present)
    desirable = data.values > 0.2
    found = kto(
        data.policy, data.reference, desirable, drift[:, None], beta=0.6, desirable_weight=1.1, undesirable_weight=0.9
    )
    for row, (policy, reference, values, counts) in enumerate(data.rows()):
        sampled = counts / counts.sum()
        moved = sampled * np.exp(policy - reference)
        moved /= moved.sum()
        z0 = (moved * np.log(moved / sampled)).sum()
        assert drift[row].item() == pytest.approx(z0)
        for place, value in enumerate(values):
            gain = 0.6 * (policy[place] - reference[place] - z0)
            weight, sign = (1.1, 1) if value > 0.2 else (0.9, -1)
            assert found[row, place].item() == pytest.approx(weight * (1 - 1 / (1 + math.exp(-sign * gain))))


def test_no_gradient_passes_through_the_reference_point() -> None:
    policy, z0 = (torch.tensor([value], requires_grad=True) for value in (-1.0, 0.3))
    torch.autograd.backward(kto(policy, torch.tensor([-2.0]), torch.tensor([True]), z0, beta=0.5))
    assert policy.grad is not None
    assert z0.grad is None


def test_the_reference_point_is_0_at_the_start_and_bounded_far_from_it() -> None:
    data = lists()
    start = sibling_kl(data.reference, data.reference, data.counts, data.present)
    assert start.abs().max() < 1e-12
    far = data.reference + torch.tensor([[500.0, -500.0, 0.0, 300.0]], dtype=torch.float64)
    drift = sibling_kl(far, data.reference, data.counts, data.present)
    for row, (_, _, _, counts) in enumerate(data.rows()):
        assert 0 <= drift[row].item() <= -math.log(counts.min() / counts.sum()) + 1e-9


LOSSES: dict[str, Callable[[Tensor, Lists], Tensor]] = {
    "lambda": lambda p, d: lambda_loss(p, d.reference, d.values, d.present, beta=0.7),
    "distillation": lambda p, d: sibling_distillation(p, d.values, d.counts, d.present, tau=0.5),
    "among siblings": lambda p, d: sibling_distillation(p, d.values, d.counts, d.present, tau=0.5, renormalise=True),
    "policy gradient": lambda p, d: tree_policy_gradient(
        p, d.reference, d.values, d.counts, d.present, advantage_clip=1.0, ratio_clip=0.2
    ),
    "kto": lambda p, d: kto(p[d.present], d.reference[d.present], d.values[d.present] > 0, torch.tensor(0.1), beta=0.7),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences_and_empty_places_get_none(name: str) -> None:
    data = lists(1)
    flat = data.policy[data.present].requires_grad_(True)

    def loss(values: Tensor) -> Tensor:
        return LOSSES[name](torch.zeros(3, 4, dtype=torch.float64).masked_scatter(data.present, values), data)

    assert torch.autograd.gradcheck(loss, (flat,))
    policy = data.policy.nan_to_num(7.0).requires_grad_(True)
    torch.autograd.backward(LOSSES[name](policy, data).sum())
    assert policy.grad is not None
    assert not policy.grad[~data.present].any()
    assert policy.grad[data.present].isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_far_from_the_reference(name: str) -> None:
    data = lists(2)
    shift = torch.tensor([[-1e4, 1e3, -1e3, 1e4]], dtype=torch.float64)
    policy = (data.reference + shift).requires_grad_(True)
    loss = LOSSES[name](policy, data).sum()
    torch.autograd.backward(loss)
    assert policy.grad is not None
    assert loss.isfinite()
    assert policy.grad[data.present].isfinite().all()

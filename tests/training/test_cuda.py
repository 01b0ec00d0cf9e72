"""Packed training on a GPU: the compiled kernel, and the gradient of a step, against sequences alone on the CPU.

Skipped without a CUDA device; `make cuda` runs them. What needs none is at the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from mcts_dpo.models.attention import flex
from mcts_dpo.models.attention import tree as attention
from mcts_dpo.models.attention.tree import dense_attention, flex_attention
from mcts_dpo.training import TrainingSettings
from mcts_dpo.training.checkpoints import make_train_state
from mcts_dpo.training.logprobs import check_packable
from mcts_dpo.training.tasks import PolicyTrainingTask
from tests.models.attention.test_flex import tree_of
from tests.training.test_exactness import SHAPE, flat_gradient, naive_loss, tree_pairs
from tests.training.world import tiny_model

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(("heads", "shared", "width"), [(9, 3, 64), (4, 4, 128), (2, 1, 32)])
def test_the_compiled_kernel(
    heads: int, shared: int, width: int, window: int | None, dtype: torch.dtype, bound: float
) -> None:
    """Values and gradients, in packs of one block and of several, and not of whole ones."""
    for length, stem in ((100, 20), (460, 40), (700, 500)):
        tree = tree_of(length, stem, seed=length)
        generator = torch.Generator().manual_seed(length)
        given = [torch.randn(1, n, length, width, generator=generator).to(dtype) for n in (heads, shared, shared)]
        above = torch.randn(1, heads, length, width, generator=generator).to(dtype)
        exact = [one.double().requires_grad_() for one in given]
        expected = dense_attention(*exact, tree, window, width**-0.5)
        slopes = torch.autograd.grad(expected, exact, above.double())
        there = attention.Tree(tree.end.cuda(), tree.depths.cuda())
        here = [one.cuda().requires_grad_() for one in given]
        assert flex.usable(here[0]), "Triton, and a C compiler for it, belong to what is tried"
        found = flex_attention(*here, there, window, width**-0.5)
        for one, other in zip(
            (found, *torch.autograd.grad(found, here, above.cuda())), (expected, *slopes), strict=True
        ):
            assert (one.double().cpu() - other).norm() / other.norm() < bound


@gpu
@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize("window", [None, 7])
def test_the_gradient_on_a_gpu_equals_that_of_one_sequence_at_a_time(window: int | None, width: int) -> None:
    """Heads of 32 by FlexAttention, heads of 8, for which it has no kernel, by dense attention."""
    settings = TrainingSettings(objective={"kind": "odpo", "beta": 0.7, "preference_weight": 0.5})
    shape = {**SHAPE, "hidden_size": 4 * width, "head_dim": width, "initializer_range": 0.1}
    torch.manual_seed(0)
    model: Any = MistralForCausalLM(MistralConfig(**shape, sliding_window=window)).eval()
    training_data = tree_pairs()
    torch.autograd.backward(naive_loss(model.double(), model, training_data, settings))
    expected = flat_gradient(model)
    model = model.float().cuda()
    check_packable(model, torch.tensor([[3, 4, 5]], device="cuda"))
    task = PolicyTrainingTask(training_data, settings, torch.device("cuda"))
    update = np.arange(task.rows)
    with torch.no_grad():
        which, values, _ = task.reference(model, rows=update)
    reference = torch.zeros(task.sequences, device="cuda").index_copy(0, which, values)
    for one in task.passes(update, 60):
        torch.autograd.backward(task.micro_batch_loss(model, rows=one, update=update, reference=reference).loss)
    found = flat_gradient(model).double().cpu()
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("objective", ["step_dpo", "simpo", "step_rft"])
def test_a_step_stays_on_its_device(objective: Any) -> None:
    """On "meta", whose tensors have no contents: an operation that mixed it with the CPU, or looked at a number before
    the step is done, raises."""
    settings = TrainingSettings(objective=objective)
    training_data, device = tree_pairs(), torch.device("meta")
    trained = make_train_state(tiny_model().to(device), torch.float32, settings)
    task = PolicyTrainingTask(training_data, settings, device)
    rows = np.arange(task.rows)
    which, values, _ = trained.call(partial(task.reference, rows=rows))
    reference = torch.zeros(task.sequences, device=device).index_copy(0, which, values.detach())
    part = trained.call(partial(task.micro_batch_loss, rows=rows, update=rows, reference=reference))
    torch.autograd.backward(part.loss)
    trained.collect_gradients()
    assert {one.device for one in (part.loss, part.figures, values)} == {device}
    assert all(master.grad is not None for master in trained.master_weights)
    with pytest.raises(RuntimeError, match="device"):
        _ = part.figures + torch.ones(len(part.figures))

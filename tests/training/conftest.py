"""Fixtures that several tests of training use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm


@pytest.fixture
def wide_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm in the model's own dtype: transformers' computes in float32 whatever the model, also in float64."""

    def forward(self: Any, states: Tensor) -> Tensor:
        return self.weight * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (LlamaRMSNorm, Qwen3RMSNorm, MistralRMSNorm):
        monkeypatch.setattr(norm, "forward", forward)

"""Preparing a model for the transformers engine: its attention is replaced, and bfloat16 weights are packed on a CPU.

Packed weights are laid out once as the CPU's matrix kernels want them. Otherwise torch re-arranges every weight in
every call, which at a few dozen rows takes a quarter of a decoding step (measured on a 0.5B model, one core: 249 → 183
ms at 32 rows, 139 → 80 ms at 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.transformers import attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 32  # the number of rows that the layout is chosen for; any other number works
# With AMX, oneDNN chooses a kernel, and with it an order of summation, by the number of rows. All products then have
# this many, so that no token depends on the others. Whole batches would be up to 1.7 times as fast at 512 rows, and
# kernels without AMX 4 to 6 times as slow (measured on layers of SmolLM2-135M and Qwen2.5-0.5B).
_TILE_ROWS = 64


class PackedLinear(torch.nn.Module):
    """y = x Wᵀ + b for bfloat16 x [..., in]; W is a copy in the kernel's own layout and cannot be trained or saved."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.bias = linear.bias
        self.rows = fixed_rows()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out]."""
        if self.rows is None:
            return self._product(x)
        flat = x.reshape(-1, x.shape[-1])
        absent = -len(flat) % self.rows
        chunks = torch.nn.functional.pad(flat, (0, 0, 0, absent)).split(self.rows)  # type: ignore[no-untyped-call]
        out = torch.cat([self._product(chunk) for chunk in chunks])
        return out[: len(flat)].reshape(*x.shape[:-1], out.shape[-1])

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


def fixed_rows() -> int | None:
    """The number of rows that every product of packed weights has on this CPU; None: any even number will do."""
    return _TILE_ROWS if torch.cpu._is_amx_tile_supported() else None


def packing_helps(model: torch.nn.Module) -> bool:
    """Whether the weights are bfloat16 on a CPU that multiplies them natively, and torch can pack them."""
    weight = next(model.parameters())
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def pack(model: torch.nn.Module) -> None:
    """Replace every plain linear layer of `model`, in place; the original weights are dropped."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(module, name, PackedLinear(child))


def prepare_model(model: PreTrainedModel) -> PreTrainedModel:
    """Change a model in place, so that it attends over the engine's pool and its weights are packed.

    Returns the same model. Raises InputError for a model whose attention is not plain softmax attention.
    """
    config = model.config.get_text_config()
    name = type(model).__name__
    if not getattr(model, "_supports_attention_backend", False):
        raise InputError(f"{name}: its attention cannot be replaced, which the transformers engine needs")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds or getattr(config, "attn_logit_softcapping", None):
        what = ", ".join(sorted(kinds)) or "soft-capped attention"
        raise InputError(f"{name}: the transformers engine runs plain softmax attention; this model has {what}")
    model.set_attn_implementation(attention.NAME)
    model.eval().requires_grad_(False)
    if packing_helps(model):
        pack(model)
    return model

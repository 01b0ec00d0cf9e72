"""Packed linear layers compute what plain ones do."""

import pytest
import torch

from mcts_dpo.engines.transformers.weights import PackedLinear, pack, packing_helps


class Small(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(48, 80)
        self.rest = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Linear(80, 33, bias=False))
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(x))


@pytest.mark.parametrize("rows", [1, 5, 32, 200])
def test_packed_equals_plain(rows: int) -> None:
    model = Small(torch.bfloat16)
    if not packing_helps(model):
        pytest.skip("this CPU does not multiply bfloat16 natively")
    x = torch.randn(2, rows, 48).bfloat16()
    exact = Small(torch.bfloat16).float()(x.float())
    with torch.inference_mode():
        plain = model(x)
        pack(model)
        packed = model(x)
    assert isinstance(model.first, PackedLinear)
    assert isinstance(model.rest[1], PackedLinear)
    assert (packed.shape, packed.dtype) == (plain.shape, torch.bfloat16)
    torch.testing.assert_close(packed.float(), exact, atol=2e-2, rtol=2e-2)
    assert (packed - plain).abs().float().mean() < 2e-3


@pytest.mark.parametrize("shape", [(576, 576), (576, 1536), (4864, 896)])
def test_no_row_depends_on_how_many_there_are(shape: tuple[int, int]) -> None:
    """To the last bit, for the even numbers of rows that the engine gives it."""
    linear = torch.nn.Linear(shape[1], shape[0], bias=False).bfloat16()
    if not packing_helps(linear):
        pytest.skip("this CPU does not multiply bfloat16 natively")
    packed, x = PackedLinear(linear), torch.randn(300, shape[1]).bfloat16()
    with torch.inference_mode():
        whole = packed(x)
        for rows in (2, 10, 16, 32, 34, 64, 66, 130, 256):
            assert torch.equal(packed(x[:rows]), whole[:rows]), rows


def test_float32_stays_as_it_is() -> None:
    assert not packing_helps(Small(torch.float32))

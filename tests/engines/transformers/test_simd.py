"""Each operation on vectors gives in compiled code what numpy gives in Python."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from mcts_dpo.engines.transformers import simd


def combined(a: Any, b: Any, halves: Any, out: Any) -> Any:
    one, other = simd.load(a, 1), simd.load(b, 2)
    simd.store(out, 0, simd.larger(one, other))
    simd.store(out, 16, one * other + simd.load(halves, 3) - simd.splat(np.float32(2)))
    simd.store(out, 32, simd.power_of_two(simd.load(a, 20)))
    return simd.total(one), simd.largest(other)


@pytest.mark.parametrize("run", [combined, numba.njit(combined)])
def test_every_operation(run: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(40).astype(np.float32) for _ in range(2))
    a[5], b[9] = np.nan, 7
    a[20:36] = [0, -0.0, -1, -0.5, -1e-6, -126, -126.5, -127, -200, -np.inf, np.nan, *(-100 * rng.random(5))]
    halves = (rng.standard_normal(24).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    out = np.empty(48, np.float32)
    total, largest = run(a, b, halves, out)
    one, other = a[1:17], b[2:18]
    np.testing.assert_array_equal(out[:16], np.where(one > other, one, other))
    wide = (halves[3:19].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(out[16:32], one.astype(float) * other + wide - 2, rtol=1e-5, atol=1e-6)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(out[32:], np.exp2(a[20:36].astype(float)), rtol=3e-7, atol=2**-126)
    assert (out[32], out[33], out[39], out[40], out[41]) == (1, 1, 0, 0, 0)
    assert np.isnan(total)
    assert largest == 7
    a[5] = 1
    assert run(a, b, halves, out)[0] == pytest.approx(a[1:17].sum(), abs=1e-5)

"""What the compiled CPU loops of the transformers engine have in common: how they are compiled, shared out, and sum.

Arrays in, arrays out; the loops themselves are in `attention_kernel` and `sampling`. Each row's result depends on
that row alone, whatever else is in the call and however many threads share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

# Fast-math without the assumption that nothing is NaN or infinite: a model that yields those must be seen to.
compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=True, error_model="numpy"
)
_LOG2E = np.float32(math.log2(math.e))
# 2**f on [0, 1) as a polynomial in f: relative error below 3e-7.
_C5, _C4, _C3 = np.float32(1.8775767e-3), np.float32(8.9893397e-3), np.float32(5.5826318e-2)
_C2, _C1, _C0 = np.float32(2.4015361e-1), np.float32(6.9315308e-1), np.float32(9.9999994e-1)


@compiled
def top_of(values: Any) -> Any:
    """The largest of `values` float32 [n], NaN ignored; sixteen lanes, so that it runs in vectors."""
    count = len(values)
    lanes = np.full(16, -np.inf, np.float32)
    for i in range(count // 16):
        for j in range(16):
            value = values[16 * i + j]
            lanes[j] = value if value > lanes[j] else lanes[j]
    top = np.float32(-np.inf)
    for j in range(16):
        top = lanes[j] if lanes[j] > top else top
    for i in range(count // 16 * 16, count):
        top = values[i] if values[i] > top else top
    return top


@compiled
def exponentials(values: Any, top: Any, inverse_temperature: Any, out: Any, bits: Any) -> None:
    """out = exp((values - top) · inverse_temperature), all float32 [n]; values ≤ top; `bits` is `out` as int32.

    2**(whole + part), written out so that the loop runs in vectors. Never below 2**-126.
    """
    factor = _LOG2E * inverse_temperature
    for i in range(len(values)):
        x = (values[i] - top) * factor
        x = np.float32(-126) if x < np.float32(-126) else x
        whole = np.floor(x)
        part = x - whole
        power = _C5
        power = power * part + _C4
        power = power * part + _C3
        power = power * part + _C2
        power = power * part + _C1
        power = power * part + _C0
        bits[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        out[i] *= power


@compiled
def total_of(values: Any) -> Any:
    """Σ values, float32 [n]."""
    total = np.float32(0)
    for i in range(len(values)):
        total += values[i]
    return total


_threads: list[ThreadPoolExecutor] = []


def share(loop: Callable[[int, int], None], work: NDArray[np.int32]) -> None:
    """Run loop(start, end) over all rows, cut into as many parts of about equal `work` as torch has threads."""
    rows = len(work)
    parts = min(torch.get_num_threads(), rows)
    if parts <= 1:
        loop(0, rows)
        return
    if not _threads:
        _threads.append(ThreadPoolExecutor(thread_name_prefix="mcts-dpo-kernels"))
    done = np.concatenate([[0], np.cumsum(work)])
    cuts = np.searchsorted(done, np.linspace(0, done[-1], parts + 1)).tolist()
    cuts[0], cuts[-1] = 0, rows
    tasks = [_threads[0].submit(loop, a, b) for a, b in pairwise(cuts) if a < b]
    for task in tasks:
        task.result()

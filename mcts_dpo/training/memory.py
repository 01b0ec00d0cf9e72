"""When memory does not suffice for a forward and backward pass: telling it from other failures, and letting go.

Knows nothing of what was computed.
"""

from __future__ import annotations

import gc

import torch

_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: CUDA's own error, Python's, or what torch's CPU allocator says."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error).lower() for saying in _SAYINGS)


def release() -> None:
    """Give back what a failed pass still holds. Call it outside the `except` block: the traceback holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

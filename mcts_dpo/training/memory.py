"""Recognising that memory ran out in a forward and backward pass, and releasing what the pass still holds."""

from __future__ import annotations

import gc

import torch

_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: CUDA's own error, Python's, or a message of torch's CPU allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _MESSAGES)


def release() -> None:
    """Release what a failed pass still holds. Call it outside the `except` block: the traceback holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

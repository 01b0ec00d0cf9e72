"""Starting and stopping vLLM's engine core in this process.

In: a model directory and settings. Out: a running `vllm.LLMEngine`. vLLM reads its options from the environment and, as
it starts, changes some of the environment and of torch; both are restored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from mcts_dpo.engines.settings import EngineSettings

# Defaults for vLLM, unless the user's environment sets them. "nobind": threads are not pinned to cores.
_DEFAULTS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
# The core must run in this process, so that its time and exceptions are seen here, on the first of vLLM's two model
# runners, for which the processor of `sampling` is written.
_REQUIRED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}


def eagerly() -> Any:
    """A context in which nothing is compiled: vLLM's compiled helpers cost minutes of C++ before the first token."""
    return torch.compiler.set_stance("force_eager")


def device() -> str:
    """Where vLLM runs models, "cuda" or "cpu": the device it was built for. Raises ImportError without vLLM."""
    with _environment():
        from vllm.platforms import current_platform
    return "cuda" if current_platform.is_cuda_alike() else "cpu"


def start(model: str, settings: EngineSettings, dtype: torch.dtype, context: int) -> Any:
    """A running engine core for `model`, a Hugging Face directory or hub name.

    dtype: of the weights. context: longest sequence. Raises ImportError without vLLM,
    and whatever vLLM raises when it cannot run the model.
    """
    with ExitStack() as around:
        around.enter_context(_environment())
        # vLLM replaces this function by one that does nothing, for everybody.
        around.callback(setattr, torch, "set_num_threads", torch.set_num_threads)
        around.enter_context(eagerly())
        from vllm import EngineArgs, LLMEngine

        from mcts_dpo.engines.vllm.sampling import DrawProcessor

        around.enter_context(_own_modules_only())
        arguments = EngineArgs(
            model=model,
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=context,
            max_num_seqs=settings.slots,
            max_num_batched_tokens=max(2048, settings.slots),
            block_size=settings.block or (16 if device() == "cuda" else 32),
            kv_cache_memory_bytes=int(settings.memory * 2**30),
            # `kv_cache_memory_bytes` says what is reserved. On CUDA vLLM also refuses to start unless this share of the
            # device's memory is free (0.32.0: 0.92), which is not so next to another engine or a value model.
            gpu_memory_utilization=1e-6,
            enable_prefix_caching=True,
            enforce_eager=True,
            async_scheduling=False,  # it computes one token too many after each stop
            logprobs_mode="raw_logprobs",
            logits_processors=[DrawProcessor],
            generation_config="vllm",  # sampling depends on the request alone, not on the model's directory
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=0,
        )
        core = LLMEngine.from_engine_args(arguments)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return core


def stop(core: Any) -> None:
    """Free the model, the memory of keys and values, and torch's process group."""
    with _environment():
        core.engine_core.shutdown()


@contextmanager
def _environment() -> Iterator[None]:
    """Set vLLM's environment variables inside the block; restore the environment afterwards."""
    before = dict(os.environ)
    os.environ.update({**_DEFAULTS, **before, **_REQUIRED})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _own_modules_only() -> Iterator[None]:
    """Limit vLLM's search for its kernels to its own modules.

    On a CPU it searches every attribute of every loaded module for references to them, and fails on objects of llvmlite
    (0.32.0: "'_lib_fn_wrapper' object has no attribute 'get'").
    """
    from vllm.triton_utils import dispatcher

    if not hasattr(dispatcher, "sys"):  # another version of vLLM
        yield
        return
    dispatcher.sys = SimpleNamespace(modules=_OwnModules())
    try:
        yield
    finally:
        dispatcher.sys = sys


class _OwnModules:
    """A view of `sys.modules` for vLLM's search: every module by name, but only vLLM's in the list of values."""

    def __getitem__(self, name: str) -> Any:
        return sys.modules[name]

    def values(self) -> list[Any]:
        return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "vllm"]

"""Starting and stopping vLLM's engine core in this process.

In: a model directory and settings. Out: a running `vllm.LLMEngine`. vLLM reads its options from the environment and, as
it starts, changes some of the environment and of torch; both are restored.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import nearest
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


# Engine arguments that are refused in `engine.extra`, each with what gives it.
_GIVEN = {
    "model": "the model",
    "dtype": "engine.dtype",
    "max_model_len": "engine.context",
    "max_num_seqs": "engine.slots",
    "block_size": "engine.block",
    "kv_cache_memory_bytes": "engine.memory",
    "tensor_parallel_size": "engine.tensor_parallel_size",
    "quantization": "engine.quantization",
    "enforce_eager": "engine.enforce_eager",
    "async_scheduling": "exact counts of tokens",
    "logprobs_mode": "log-probabilities of the policy",
    "logits_processors": "this project's draws",
    "generation_config": "search.generation_config",
}


def is_eager(settings: EngineSettings, on: str) -> bool:
    """Whether nothing is compiled. on: "cuda" or "cpu". On a CPU vLLM's compiled helpers cost minutes of C++."""
    return on != "cuda" if settings.enforce_eager is None else settings.enforce_eager


def compiling(settings: EngineSettings, on: str) -> Any:
    """The context of every call of the core: nothing is compiled in it if `is_eager`."""
    return torch.compiler.set_stance("force_eager") if is_eager(settings, on) else nullcontext()


def engine_arguments(model: str, settings: EngineSettings, dtype: torch.dtype, context: int, on: str) -> dict[str, Any]:
    """The arguments of vLLM's `EngineArgs`.

    model: a Hugging Face directory or hub name. dtype: of the weights. context: longest sequence. on: "cuda" or "cpu".
    """
    return {
        "max_num_batched_tokens": max(2048, settings.slots),
        # `kv_cache_memory_bytes` says what is reserved. On CUDA vLLM also refuses to start unless this share of the
        # device's memory is free (0.32.0: 0.92), which is not so next to another engine or a value model.
        "gpu_memory_utilization": 1e-6,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
        **settings.extra,
        "model": model,
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": context,
        "max_num_seqs": settings.slots,
        "block_size": settings.block or (16 if on == "cuda" else 32),
        "kv_cache_memory_bytes": int(settings.memory * 2**30),
        "tensor_parallel_size": settings.tensor_parallel_size,
        "quantization": settings.quantization,
        "enforce_eager": is_eager(settings, on),
        "async_scheduling": False,  # it computes one token too many after each stop
        "logprobs_mode": "raw_logprobs",
        "logits_processors": ["mcts_dpo.engines.vllm.sampling:DrawProcessor"],  # by name: workers import it
        "generation_config": "vllm",  # sampling depends on the request alone, not on the model's directory
    }


def refuse_settings(settings: EngineSettings, on: str, accepted: Collection[str]) -> None:
    """Raise InputError for settings that vLLM does not have here.

    on: "cuda" or "cpu". accepted: names of vLLM's engine arguments.
    """
    if settings.batch_invariant and on != "cuda":
        raise InputError("engine.batch_invariant: true, but vLLM has this mode on CUDA only; accepted here: false")
    for name in settings.extra:
        if name in _GIVEN:
            raise InputError(f"engine.extra: {name!r} follows from {_GIVEN[name]}; accepted: other engine arguments")
        if name not in accepted:
            close = nearest(name, sorted(accepted))
            hint = f"; did you mean {close!r}?" if close else ""
            raise InputError(
                f"engine.extra: {name!r} is no engine argument of vLLM{hint} (accepted: those of EngineArgs)"
            )


def device() -> str:
    """Where vLLM runs models, "cuda" or "cpu": the device it was built for. Raises ImportError without vLLM."""
    with _environment():
        from vllm.platforms import current_platform
    return "cuda" if current_platform.is_cuda_alike() else "cpu"


def start(model: str, settings: EngineSettings, dtype: torch.dtype, context: int, on: str) -> Any:
    """A running engine core; see `engine_arguments`.

    Raises ImportError without vLLM, InputError for settings that it does not have, and whatever vLLM raises when it
    cannot run the model.
    """
    if settings.batch_invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"  # vLLM reads it in every step, so it is not restored
    with ExitStack() as around:
        around.enter_context(_environment())
        # vLLM replaces this function by one that does nothing, for everybody.
        around.callback(setattr, torch, "set_num_threads", torch.set_num_threads)
        around.enter_context(compiling(settings, on))
        from vllm import EngineArgs, LLMEngine

        refuse_settings(settings, on, [field.name for field in dataclasses.fields(EngineArgs)])
        around.enter_context(_own_modules_only())
        arguments = EngineArgs(**engine_arguments(model, settings, dtype, context, on))
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

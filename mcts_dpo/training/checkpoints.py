"""The policy as something that can be trained, and back to a Hugging Face directory.

In: a model as `mcts_dpo.models` loads it, and the settings. Out: a `Trainable`, and later the trained policy
on disk. Knows no data, loss or schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from mcts_dpo.files import InputError, read_json
from mcts_dpo.models import load_model
from mcts_dpo.training.settings import LoraSettings, TrainingSettings


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model whose trained weights have float32 masters.

    model:    the transformers model that is called (adapters, if any, inside it).
    adapters: the PEFT model around it, or None.
    weights:  the trained parameters, in the dtype that is computed with.
    masters:  one per weight: the weight itself where it is float32 (or wider), else a float32 copy that is updated
              in its stead. A bf16 weight alone would lose most updates: at lr 1e-6 they are below its resolution.
    stored:   dtype that the policy is stored in, and is saved in again.
    """

    model: Any
    adapters: Any | None
    weights: list[nn.Parameter]
    masters: list[Tensor]
    stored: torch.dtype

    def collect_gradients(self) -> None:
        """Add the weights' gradients to the masters', in the masters' dtype, and clear them."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is weight or weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.to(master.dtype)
            else:
                master.grad += weight.grad
            weight.grad = None

    def publish_masters(self) -> None:
        """Copy the masters into the weights after an update."""
        with torch.no_grad():
            for weight, master in zip(self.weights, self.masters, strict=True):
                if master is not weight:
                    weight.copy_(master)


def load_trainable(policy: str | Path, settings: TrainingSettings) -> Trainable:
    """Load the policy for training: dropout off, the trained weights chosen, their masters made.

    Raises InputError for a policy that cannot be loaded and for LoRA targets that it does not have.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = load_model(policy, "float32", device)
    stored = stored_dtype(policy, model)
    compute = torch.float32
    if settings.dtype == "bfloat16" or (settings.dtype == "auto" and settings.lora and stored != torch.float32):
        compute = torch.bfloat16
    # Only weights: buffers such as rotary frequencies lose what they are for when they are rounded.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(compute)
    return make_trainable(model, stored, settings)


def make_trainable(model: Any, stored: torch.dtype, settings: TrainingSettings) -> Trainable:
    """Set a loaded model up for training in the dtype that its weights have. See `load_trainable`."""
    adapters = _add_adapters(model, settings.lora, settings.seed) if settings.lora else None
    if adapters is None:
        model.requires_grad_(True)
    # Evaluation mode turns dropout off: what is scored must be the policy, and equal at each look.
    model.eval()
    if settings.gradient_checkpointing:
        _checkpoint_layers(model)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    masters: list[Tensor] = [
        weight if weight.dtype in {torch.float32, torch.float64} else weight.detach().float().requires_grad_(True)
        for weight in weights
    ]
    return Trainable(model, adapters, weights, masters, stored)


def stored_dtype(policy: str | Path, model: Any) -> torch.dtype:
    """The dtype that the policy is stored in: as its configuration says, else by what is usual for its size."""
    config = Path(policy).expanduser() / "config.json"
    if config.is_file():
        content = read_json(config)
        name = content.get("dtype") or content.get("torch_dtype") or "float32"
        found = getattr(torch, str(name).removeprefix("torch."), None)
        if isinstance(found, torch.dtype):
            return found
    small = sum(parameter.numel() for parameter in model.parameters()) < 50_000_000
    return torch.float32 if small else torch.bfloat16


def save_policy(trained: Trainable, tokenizer: Any, folder: Path) -> None:
    """Write the trained policy to `folder` (made): a plain Hugging Face directory with its tokenizer.

    Adapters are written to `folder`/adapter in float32, and merged into the weights in float32 before these are cast
    to the stored dtype: bf16 sums would round a third of the adapters' work away. The model is spent afterwards.
    """
    with torch.no_grad():
        for weight, master in zip(trained.weights, trained.masters, strict=True):
            weight.data = master.data.detach()
    model = trained.model
    if trained.adapters is not None:
        _save_adapters(trained.adapters, folder / "adapter")
        model = _merge(trained.adapters, trained.stored)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(trained.stored)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)


def _add_adapters(model: Any, lora: LoraSettings, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if lora.targets == "all-linear" else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        layers = sorted({name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, nn.Linear)})
        reason = str(error).splitlines()[0]
        raise InputError(
            f"training.lora.targets: {lora.targets!r} "
            f"(accepted: 'all-linear' or names among {', '.join(layers)}; {reason})"
        ) from None


def _save_adapters(adapters: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    state = sorted(get_peft_model_state_dict(adapters, save_embedding_layers=False).items())
    save_file({name: tensor.contiguous() for name, tensor in state}, folder / "adapter_model.safetensors")
    config = adapters.peft_config["default"]
    # A set has another order in each process; the file must not.
    config.target_modules = sorted(config.target_modules)
    config.inference_mode = True
    config.save_pretrained(folder)


def _merge(adapters: Any, dtype: torch.dtype) -> Any:
    """The plain model with every adapter's product added to its layer's weight in float32, then cast to `dtype`."""
    from peft.tuners.lora import LoraLayer

    for module in adapters.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            # Layer by layer: a whole model in float32 need not exist.
            weight.data = (weight.data.float() + module.get_delta_weight("default").float()).to(dtype)
    return adapters.unload()


def _checkpoint_layers(model: Any) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"training.gradient_checkpointing: {str(error).splitlines()[0]}") from None
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # The layer asks for training mode before it recomputes; what is inside it stays without dropout.
            module.training = True

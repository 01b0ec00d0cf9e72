"""Prepares a policy for training, and writes the trained policy to a Hugging Face directory.

In: a model as `mcts_dpo.models.loading` loads it, and the settings. Out: a `TrainState`, and later the trained policy
on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import default_dtype, has_bfloat16, load_model, quiet_transformers, stored_dtype
from mcts_dpo.training.distributed import local_device
from mcts_dpo.training.settings import LoraSettings, TrainingSettings

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TrainState:
    """A model in training, with float32 master weights for its trained weights.

    model:    the transformers model that is called. It contains the adapters, if there are any.
    adapters: the PEFT model around it, or None.
    weights:  the trained parameters, in the dtype of the computation.
    master_weights: one tensor per weight. It is the weight itself if the weight is float32 or wider. Otherwise it is a
              float32 copy that the optimizer updates instead. A bf16 weight alone would lose most updates: at lr 1e-6
              they are below its resolution. For a sharded model: this process's shard, [rows / processes, …].
    stored:   dtype in which the policy is stored. It is saved in the same dtype.
    root:     for a sharded model, the module inside whose forward every computation must run. None otherwise.
    """

    model: Any
    adapters: Any | None
    weights: list[nn.Parameter]
    master_weights: list[Tensor]
    stored: torch.dtype
    root: nn.Module | None = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.weights[0].device

    def call(self, function: Callable[[Any], Result]) -> Result:
        """Return `function(model)`.

        For a sharded model, the function runs inside the root's forward, where the weights can be read whole.
        """
        if self.root is None:
            return function(self.model)
        result: Result = self.root(function)
        return result

    def collect_gradients(self) -> None:
        """Add the gradients of the weights to those of the master weights, in the master weights' dtype.

        The gradients of the weights are cleared.
        """
        for weight, master in zip(self.weights, self.master_weights, strict=True):
            if master is weight or weight.grad is None:
                continue
            gradient = local(weight.grad)
            if master.grad is None:
                master.grad = gradient.to(master.dtype)
            else:
                master.grad += gradient
            weight.grad = None

    def clear_gradients(self) -> None:
        """Clear all gradients, including those of an unfinished update."""
        for tensor in (*self.weights, *self.master_weights):
            tensor.grad = None

    def publish_master_weights(self) -> None:
        """Copy the master weights into the weights after an update."""
        with torch.no_grad():
            for weight, master in zip(self.weights, self.master_weights, strict=True):
                if master is not weight:
                    local(weight).copy_(master)

    def adopt_master_weights(self) -> None:
        """Replace the weights by the master weights, in their dtype, to write them. They cannot be trained any more."""
        with torch.no_grad():
            for weight, master in zip(self.weights, self.master_weights, strict=True):
                weight.data = master.data.detach()

    def gathered(self, index: int, part: Tensor) -> Tensor:
        """Collect a whole tensor on the CPU from the parts of all processes.

        index: of the weight that has the tensor's shape. part: this process's shard of the tensor. For a sharded model
        this is a collective operation, so every process must call it.
        """
        weight = self.weights[index]
        if isinstance(weight, DTensor):
            part = DTensor.from_local(
                part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
            ).full_tensor()
        return part.contiguous().cpu()

    def own_part(self, index: int, full: Tensor) -> Tensor:
        """Take this process's shard from a whole tensor: the inverse of `gathered`.

        index: of the weight that has the tensor's shape. full: the whole tensor.
        """
        weight = self.weights[index]
        if not isinstance(weight, DTensor):
            return full
        return local(
            distribute_tensor(full.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        )


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that is on this process: all of it, unless the tensor is sharded. It shares memory."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


class _Root(nn.Module):
    """The module around a sharded model. A function that is called inside its forward can read whole weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[Any], Any]) -> Any:
        return function(self.model)


def shard(trained: TrainState) -> TrainState:
    """Shard a policy over all processes of the group (FSDP2), layer by layer. Do not use the argument afterwards.

    Gradients are summed over the processes in float32. They are not averaged, because every loss is normalised by the
    totals of the whole update. Embeddings and head stay whole from the root's forward to the end of its backward, so
    that a readout in pieces can be recomputed.
    """
    mesh = init_device_mesh(trained.device.type, (dist.get_world_size(),))
    root = _Root(trained.model)
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in trained.model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo does not support a scaled sum
    weights = [parameter for parameter in trained.model.parameters() if parameter.requires_grad]
    master_weights: list[Tensor] = []
    for weight in weights:
        part = local(weight)
        master_weights.append((part if _wide(part.dtype) else part.float()).requires_grad_(True))
    return replace(trained, weights=weights, master_weights=master_weights, root=root)


def unsharded(trained: TrainState, policy: str | Path, settings: TrainingSettings) -> TrainState:
    """Turn a sharded policy into a whole model on rank 0. The other ranks take part and get their argument back.

    policy: the policy that the training started from. Rank 0 loads it again and copies the trained weights into it.
    A policy that is not sharded is returned as it is.
    """
    if trained.root is None:
        return trained
    complete = load_train_state(policy, settings) if dist.get_rank() == 0 else None
    for index, master in enumerate(trained.master_weights):
        full = trained.gathered(index, master.detach())
        if complete is not None:
            with torch.no_grad():
                complete.master_weights[index].copy_(full)
    return trained if complete is None else complete


def _wide(dtype: torch.dtype) -> bool:
    return dtype in {torch.float32, torch.float64}


def load_train_state(policy: str | Path, settings: TrainingSettings) -> TrainState:
    """Load a policy for training: turn dropout off, choose the trained weights and make their master weights.

    Raises InputError if the policy cannot be loaded, or if it does not have the LoRA targets.
    """
    model: Any = load_model(policy, "float32", local_device())
    # A quantised policy (.gguf) has no stored dtype. It gets the usual dtype for its size.
    stored = stored_dtype(policy) or default_dtype(sum(one.numel() for one in model.parameters()), "cpu")
    narrow = settings.lora is not None and stored != torch.float32 and has_bfloat16(local_device())
    auto = torch.bfloat16 if narrow else torch.float32
    compute = auto if settings.dtype == "auto" else getattr(torch, settings.dtype)
    # Only weights are cast: buffers such as rotary frequencies would lose needed precision.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(compute)
    # New adapters name this as their base. For a policy that is an adapter, it is the adapter, not its base model.
    model.name_or_path = str(policy)
    return make_train_state(model, stored, settings)


def make_train_state(model: Any, stored: torch.dtype, settings: TrainingSettings) -> TrainState:
    """Prepare a loaded model for training in the dtype of its weights. See `load_train_state`.

    stored: the dtype in which the policy is saved.
    """
    adapters = _add_adapters(model, settings.lora, settings.seed) if settings.lora else None
    if adapters is None:
        model.requires_grad_(True)
    # Evaluation mode turns dropout off: the scores must be those of the policy, and the same each time.
    model.eval()
    if settings.gradient_checkpointing:
        _checkpoint_layers(model)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    master_weights: list[Tensor] = [
        weight if _wide(weight.dtype) else weight.detach().float().requires_grad_(True) for weight in weights
    ]
    return TrainState(model, adapters, weights, master_weights, stored)


def save_policy(trained: TrainState, tokenizer: Any, folder: Path) -> None:
    """Write the trained policy to `folder`, which is created: a plain Hugging Face directory with its tokenizer.

    Adapters are written to `folder`/adapter in float32. They are also merged into the weights in float32, and then the
    weights are cast to the stored dtype. Sums in bf16 would round away a third of the adapters' effect. Do not use
    `trained` afterwards.
    """
    trained.adopt_master_weights()
    model = trained.model
    if trained.adapters is not None:
        save_adapters(trained.adapters, folder / "adapter")
        model = merge_adapters(trained.adapters, trained.stored)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(trained.stored)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _add_adapters(model: Any, lora: LoraSettings, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    _check_targets(model, lora)
    targets = lora.targets if lora.targets == "all-linear" else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise _no_target(model, lora.targets, str(error).splitlines()[0]) from None


def _check_targets(model: Any, lora: LoraSettings) -> None:
    """Raise InputError for a target that no layer has, and for a target whose adapters would not be trained here.

    Adapters on the head and the embeddings are not trained: log-probabilities are computed with the head's own weight,
    and in many models the embeddings share this weight.
    """
    if lora.targets == "all-linear":
        return
    outside = {id(model.get_output_embeddings()): "the head", id(model.get_input_embeddings()): "the embeddings"}
    for target in lora.targets:
        found = [one for name, one in model.named_modules() if name == target or name.endswith(f".{target}")]
        if not found:
            raise _no_target(model, target, "no layer of this policy has that name")
        for one in found:
            what = outside.get(id(one)) or ("embeddings" if isinstance(one, nn.Embedding) else None)
            if what is not None:
                raise _no_target(model, target, f"adapters on {what} cannot be trained here")


def _no_target(model: Any, given: str | tuple[str, ...], reason: str) -> InputError:
    head = model.get_output_embeddings()
    linear = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head]
    layers = sorted({name.rpartition(".")[2] for name in linear})
    return InputError(
        f"training.lora.targets: {given!r}: {reason} (accepted: 'all-linear' or names among {', '.join(layers)})"
    )


def save_adapters(adapters: Any, folder: Path) -> None:
    """Write only the adapters to `folder`, which is created, in the format that PEFT reads."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    state = sorted(get_peft_model_state_dict(adapters, save_embedding_layers=False).items())
    save_file({name: tensor.contiguous() for name, tensor in state}, folder / "adapter_model.safetensors")
    config = adapters.peft_config["default"]
    # The order of a set differs between processes. The order in the file must not.
    config.target_modules = sorted(config.target_modules)
    config.inference_mode = True
    config.save_pretrained(folder)


def merge_adapters(adapters: Any, dtype: torch.dtype) -> Any:
    """Merge the adapters into the plain model: add each product to its layer's weight in float32, cast to `dtype`."""
    from peft.tuners.lora import LoraLayer

    for module in adapters.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            # Cast one layer at a time, so that the whole model never exists in float32.
            weight.data = (weight.data.float() + module.get_delta_weight("default").float()).to(dtype)
    return adapters.unload()


def _checkpoint_layers(model: Any) -> None:
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"training.gradient_checkpointing: {str(error).splitlines()[0]}") from None
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # A layer only recomputes in training mode. The modules inside it stay in evaluation mode, without dropout.
            module.training = True

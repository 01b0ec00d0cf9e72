"""The policy as something that can be trained, and back to a Hugging Face directory.

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
    """A model whose trained weights have float32 master weights.

    model:    the transformers model that is called (adapters, if any, inside it).
    adapters: the PEFT model around it, or None.
    weights:  the trained parameters, in the dtype that is computed with.
    master_weights: one per weight: the weight itself where it is float32 (or wider), otherwise a float32 copy that is
              updated instead of it. A bf16 weight alone would lose most updates: at lr 1e-6 they are below its
              resolution. Of a model in shards: of this process's shard, [rows / processes, …].
    stored:   dtype that the policy is stored in, and is saved in again.
    root:     of a model in shards: the module whose forward everything must happen inside; else None.
    """

    model: Any
    adapters: Any | None
    weights: list[nn.Parameter]
    master_weights: list[Tensor]
    stored: torch.dtype
    root: nn.Module | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights[0].device

    def call(self, function: Callable[[Any], Result]) -> Result:
        """`function(model)`; of a model in shards inside its root's forward, where its weights can be read whole."""
        if self.root is None:
            return function(self.model)
        result: Result = self.root(function)
        return result

    def collect_gradients(self) -> None:
        """Add the weights' gradients to the master weights', in the master weights' dtype, and clear them."""
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
        """Forget all gradients, also those of an update that was not finished."""
        for tensor in (*self.weights, *self.master_weights):
            tensor.grad = None

    def publish_master_weights(self) -> None:
        """Copy the master weights into the weights after an update."""
        with torch.no_grad():
            for weight, master in zip(self.weights, self.master_weights, strict=True):
                if master is not weight:
                    local(weight).copy_(master)

    def gathered(self, index: int, part: Tensor) -> Tensor:
        """On the CPU, the whole of something shaped like master `place`, of which `part` is this process's share.

        A collective operation where the model is in shards.
        """
        weight = self.weights[index]
        if isinstance(weight, DTensor):
            part = DTensor.from_local(
                part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
            ).full_tensor()
        return part.contiguous().cpu()

    def own_part(self, index: int, full: Tensor) -> Tensor:
        """This process's share of something shaped like the whole of weight `place`: the inverse of `gathered`."""
        weight = self.weights[index]
        if not isinstance(weight, DTensor):
            return full
        return local(
            distribute_tensor(full.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        )


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that is on this process: all of it unless it is in shards. Shares its memory."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


class _Root(nn.Module):
    """The module around a model in shards: what is called inside its forward finds the weights whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[Any], Any]) -> Any:
        return function(self.model)


def shard(trained: TrainState) -> TrainState:
    """The same policy in shards over all processes of the group (FSDP2), layer by layer; the old one is spent.

    Gradients are summed over the processes (never averaged: every loss is normalised by the whole update's totals), in
    float32. Embeddings and head stay whole from a root's forward to the end of its backward, so that a readout in
    pieces can be computed again.
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
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    weights = [parameter for parameter in trained.model.parameters() if parameter.requires_grad]
    master_weights: list[Tensor] = []
    for weight in weights:
        part = local(weight)
        master_weights.append((part if _wide(part.dtype) else part.float()).requires_grad_(True))
    return replace(trained, weights=weights, master_weights=master_weights, root=root)


def unsharded(trained: TrainState, policy: str | Path, settings: TrainingSettings) -> TrainState:
    """What was trained in shards as a model that is whole: in rank 0 alone, the others take part and get theirs back.

    policy: where the training started; it is loaded again, and given the trained weights.
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
    """Load the policy for training: dropout off, the trained weights chosen, their master weights made.

    Raises InputError for a policy that cannot be loaded and for LoRA targets that it does not have.
    """
    model: Any = load_model(policy, "float32", local_device())
    # A quantised policy was given the dtype that is usual for its size.
    stored = stored_dtype(policy) or default_dtype(sum(one.numel() for one in model.parameters()), "cpu")
    narrow = settings.lora is not None and stored != torch.float32 and has_bfloat16(local_device())
    auto = torch.bfloat16 if narrow else torch.float32
    compute = auto if settings.dtype == "auto" else getattr(torch, settings.dtype)
    # Only weights: buffers such as rotary frequencies lose what they are for when they are rounded.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(compute)
    # New adapters name this as their base. For a policy that is an adapter, it is the adapter, not its base model.
    model.name_or_path = str(policy)
    return make_train_state(model, stored, settings)


def make_train_state(model: Any, stored: torch.dtype, settings: TrainingSettings) -> TrainState:
    """Set a loaded model up for training in the dtype that its weights have. See `load_train_state`."""
    adapters = _add_adapters(model, settings.lora, settings.seed) if settings.lora else None
    if adapters is None:
        model.requires_grad_(True)
    # Evaluation mode turns dropout off: what is scored must be the policy, and equal at each look.
    model.eval()
    if settings.gradient_checkpointing:
        _checkpoint_layers(model)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    master_weights: list[Tensor] = [
        weight if _wide(weight.dtype) else weight.detach().float().requires_grad_(True) for weight in weights
    ]
    return TrainState(model, adapters, weights, master_weights, stored)


def save_policy(trained: TrainState, tokenizer: Any, folder: Path) -> None:
    """Write the trained policy to `folder` (made): a plain Hugging Face directory with its tokenizer.

    Adapters are written to `folder`/adapter in float32, and merged into the weights in float32 before these are cast
    to the stored dtype: bf16 sums would round a third of the adapters' work away. The model is spent afterwards.
    """
    with torch.no_grad():
        for weight, master in zip(trained.weights, trained.master_weights, strict=True):
            weight.data = master.data.detach()
    model = trained.model
    if trained.adapters is not None:
        save_adapters(trained.adapters, folder / "adapter")
        model = _merge(trained.adapters, trained.stored)
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
    """Raise InputError for a target that no layer has, and for one whose adapters would not be trained here.

    Log-probabilities are read out with the head's own weight, and embeddings share theirs with it in many models.
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
    """Write the adapters by themselves to `folder` (made), as PEFT reads them."""
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
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"training.gradient_checkpointing: {str(error).splitlines()[0]}") from None
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # The layer asks for training mode before it recomputes; what is inside it stays without dropout.
            module.training = True

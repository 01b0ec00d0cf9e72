"""Loading a policy and its tokenizer from wherever a user has them. Floor 0: knows no engine, no training.

A model is named by one string or path:
- a directory in Hugging Face format (config.json, safetensors, tokenizer);
- a directory that holds a PEFT adapter: its base model is loaded and the adapter merged into it, in float32;
- a `.gguf` file: the weights are de-quantised and trainable, the tokenizer comes from the same file;
- anything else: a name on the Hugging Face hub.
What cannot be loaded, or would be loaded with random numbers in it, raises InputError with one line. Code that comes
with a model is never run, and nobody is asked whether it may be.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from huggingface_hub import model_info, try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
from transformers.utils import logging as transformers_logging

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, read_json, shown, whole
from mcts_dpo.models.checks import named, require_complete, require_possible, require_sizes, require_whole_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16"]
_SMALL = 50_000_000  # parameters below which "auto" means float32 on a CPU: speed is no concern, exactness is
_NO_CODE = {"trust_remote_code": False}  # left out, transformers would ask on the terminal
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model is. `name`: what from_pretrained is given; `options`: what goes with it."""

    kind: Literal["directory", "adapter", "gguf", "hub"]
    name: str
    options: dict[str, Any]


def _locate(model: str | Path) -> _Source:
    text = str(model)
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            _require_base(path)
            return _Source("adapter", str(path), _NO_CODE)
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: not a model: neither config.json nor adapter_config.json in this directory")
        return _Source("directory", str(path), _NO_CODE)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise InputError(f"{path}: not a model (accepted: a Hugging Face directory, a .gguf file, or a hub name)")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(f"{path}: not a GGUF file (it does not start with the bytes 'GGUF')")
        return _Source("gguf", str(path.parent), {**_NO_CODE, "gguf_file": path.name})
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(text) or path.suffix.lower() == ".gguf":
        raise InputError(f"{text}: no such model file or directory")
    return _Source("hub", text, _hub_options(text))


def _hub_options(name: str) -> dict[str, Any]:
    """How to load `name` from the hub; from this machine's cache alone when the hub cannot be asked.

    Asked once and first, because from_pretrained goes on asking an unreachable hub for the better part of a minute.
    """
    try:
        model_info(name, timeout=30)
    except Exception as error:  # whatever the hub's client of the day raises when refused or unreachable
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return {**_NO_CODE, "local_files_only": True}
        raise InputError(f"{name}: no such file or directory, and no such model on the hub ({_line(error)})") from None
    return _NO_CODE


def _line(error: Exception) -> str:
    """What an error says, in one line: the first of its message, and the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError | AttributeError) else said


def _adapter_base(directory: Path) -> str | Path:
    """The base model that an adapter names: a path (also relative to the adapter) or a hub name."""
    config = directory / "adapter_config.json"
    about = read_json(config)
    if not isinstance(about, dict):
        raise InputError(f"{config}: {shown(about)} (accepted: an object, as PEFT writes it)")
    base = about.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{config}: base_model_name_or_path: {base!r} (accepted: a path or a hub name)")
    beside = directory / base
    return beside.resolve() if not Path(base).exists() and beside.exists() else base


def _require_base(directory: Path) -> None:
    """Raise InputError for an adapter whose base model is, in the end, the adapter itself."""
    passed: list[Path] = []
    while (directory / "adapter_config.json").is_file():
        if directory.resolve() in passed:
            config = passed[0] / "adapter_config.json"
            raise InputError(f"{config}: base_model_name_or_path: leads back to the adapter (accepted: another model)")
        passed.append(directory.resolve())
        directory = Path(_adapter_base(directory))


def _attempt(what: str, model: str | Path, load: Callable[[], Loaded]) -> Loaded:
    """Run `load`; what a user can mend (missing, unreadable, unreachable) becomes one line."""
    try:
        return load()
    except InputError:
        raise
    except Exception as error:  # a damaged file surfaces as whatever its reader trips over
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{model}: comes with code of its own, which is not run (accepted: models that transformers knows)"
            ) from None
        raise InputError(f"{model}: no {what} could be loaded ({_line(error)})") from error


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `model` (see the module for what a model can be).

    Raises InputError when there is no such model or it comes without a tokenizer.
    """
    source = _locate(model)
    if source.kind == "adapter" and not any((Path(source.name) / name).is_file() for name in _TOKENIZER_FILES):
        return load_tokenizer(_adapter_base(Path(source.name)))
    if source.kind == "directory" and not any((Path(source.name) / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(f"{model}: model without tokenizer: none of {', '.join(_TOKENIZER_FILES)} in this directory")

    if source.kind == "directory":
        _attempt("configuration", model, lambda: _config(source, model))

    def load() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(source.name, **source.options)

    return _attempt("tokenizer", model, load)


def load_model(
    model: str | Path, dtype: Dtype | torch.dtype = "auto", device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """The causal language model, in evaluation mode, every weight an ordinary trainable parameter.

    dtype: of the weights; "auto": float32 on a CPU below 50M parameters or without bfloat16 instructions, else
    bfloat16. An adapter is merged in float32 before the cast. Raises InputError when there is no such model or it is
    not a causal language model.
    """
    source = _locate(model)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
    if source.kind == "adapter":
        loaded = merge_adapter(load_model(_adapter_base(Path(source.name)), torch.float32), Path(source.name))
    else:
        # "auto" reads a directory as it is stored (no detour through float32); a GGUF file has no such type.
        first = torch.float32 if source.kind == "gguf" else wanted
        loaded = _attempt("causal language model", model, lambda: _from_pretrained(source, model, first))
    if wanted == "auto":
        wanted = default_dtype(sum(parameter.numel() for parameter in loaded.parameters()), device)
    loaded.to(device=device)
    for parameter in loaded.parameters():
        # Weights only: a rotary embedding's frequencies are float32 buffers, and rounded they turn far positions.
        parameter.data = parameter.data.to(wanted)
    return loaded.eval()


def as_directory(model: str | Path, scratch: Path, dtype: Dtype | torch.dtype = "auto") -> str:
    """What a program that knows neither GGUF files nor adapters can load: a directory's path, or a hub name.

    A `.gguf` file or an adapter is saved once as a Hugging Face directory at `scratch` (which must not exist), its
    weights as `load_model(model, dtype)` gives them. Raises InputError when there is no such model.
    """
    source = _locate(model)
    if source.kind in {"directory", "hub"}:
        return source.name
    tokenizer = load_tokenizer(model)
    loaded = load_model(model, dtype)
    with whole(scratch) as partial:
        loaded.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return str(scratch)


def load_skeleton(model: str | Path) -> PreTrainedModel:
    """The model without its weights (they are on the "meta" device): configuration, shapes, generation settings.

    model: a directory or a hub name. Raises InputError when there is no such model or it is not a causal one.
    """
    source = _locate(model)

    def load() -> PreTrainedModel:
        config = _config(source, model)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, **_NO_CODE)
        with suppress(OSError):  # a model need not come with generation settings
            skeleton.generation_config = GenerationConfig.from_pretrained(source.name, **source.options)
        return skeleton

    return _attempt("causal language model", model, load)


def stored_dtype(model: str | Path) -> torch.dtype | None:
    """The data type that a model's weights are stored in, by its configuration (float32 where that says nothing).

    Of an adapter, its base model's. None for a .gguf file, whose weights are quantised. Raises as `load_model` does.
    """
    source = _locate(model)
    if source.kind == "adapter":
        return stored_dtype(_adapter_base(Path(source.name)))
    if source.kind == "gguf":
        return None
    config = _attempt("configuration", model, lambda: _config(source, model))
    return config.dtype or config.get_text_config().dtype or torch.float32


def context_length(model: str | Path) -> int | None:
    """Tokens that a model was made for, by its configuration; None where that does not say. Raises as `load_model`."""
    source = _locate(model)
    if source.kind == "adapter":
        return context_length(_adapter_base(Path(source.name)))
    config = _attempt("configuration", model, lambda: _config(source, model))
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def default_dtype(parameters: int, device: str | torch.device) -> torch.dtype:
    """What the data type "auto" means for a model of that size on that device."""
    small = parameters < _SMALL and torch.device(device).type == "cpu"
    return torch.float32 if small or not has_bfloat16(device) else torch.bfloat16


def has_bfloat16(device: str | torch.device, capabilities: Mapping[str, object] | None = None) -> bool:
    """Whether the device multiplies bfloat16 matrices itself: every GPU; a CPU with AVX512-BF16, AMX or ARM's BF16.

    Without such instructions torch emulates them, at a fortieth of the pace of float32 (measured on AVX2: 1.9 against
    78 GFLOP/s). The flags decide, not a measurement: a resumed run must make the same choice on a busy machine.

    capabilities: of the CPU by name, as `torch.cpu.get_capabilities` says (None: this machine's).
    """
    if torch.device(device).type != "cpu":
        return True
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return any(bool(value) for name, value in found.items() if name.endswith("bf16"))


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model needs, counted from its configuration.

    parameters:     weights, tied ones once.
    cache_elements: numbers of keys and values per token, all layers.
    context:        tokens that the model was made for.
    linear_width:   Σ (inputs + outputs) over its linear layers but the head: LoRA adds that many weights per rank.
    """

    parameters: int
    cache_elements: int
    context: int
    linear_width: int


def model_size(model: str | Path) -> ModelSize:
    """The size of a model without loading its weights. Raises InputError as `load_model` does."""
    source = _locate(model)
    if source.kind == "adapter":
        return model_size(_adapter_base(Path(source.name)))
    built = load_skeleton(model)
    text = built.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    head = built.get_output_embeddings()
    linear = [m for m in built.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in built.parameters()),
        cache_elements=2 * text.num_hidden_layers * heads * width,
        context=int(text.max_position_embeddings),
        linear_width=sum(layer.in_features + layer.out_features for layer in linear),
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers draws no progress bars and prints no reports of its own while the block runs."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _config(source: _Source, model: str | Path) -> Any:
    """A model's configuration. Raises InputError for one that no model can have."""
    if source.kind == "directory":  # before transformers computes with them
        raw = read_json(Path(source.name) / "config.json")
        if isinstance(raw, dict):
            require_sizes(raw, str(model))
    config = AutoConfig.from_pretrained(source.name, **source.options)
    require_possible(config, str(model))
    return config


def _from_pretrained(source: _Source, model: str | Path, dtype: torch.dtype | str) -> PreTrainedModel:
    _config(source, model)
    options: dict[str, Any] = dict(source.options)
    if source.kind == "gguf":
        options["quantization_config"] = GgufConfig(dequantize=True)
    with quiet_transformers():
        loaded, report = AutoModelForCausalLM.from_pretrained(
            source.name, dtype=dtype, output_loading_info=True, **options
        )
    require_complete(report["missing_keys"], str(model))
    if report["unexpected_keys"]:
        logger.warning(
            "%s: the model has no place for %s, which its files hold", model, named(report["unexpected_keys"])
        )
    if source.kind == "gguf":
        # The weights are plain now; a policy saved from them must not claim to be quantised.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        loaded.is_quantized = False
        loaded.hf_quantizer = None
    return loaded


def merge_adapter(base: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """A model with a PEFT adapter's products added to its weights; `base` is spent.

    Raises InputError for an adapter that is damaged, lacks tensors or belongs to another base model.
    """
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

    def load() -> PreTrainedModel:
        with warnings.catch_warnings(action="ignore"):  # of missing tensors, which are refused below
            adapted = PeftModel.from_pretrained(base, str(directory))
        wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        require_whole_adapter(wanted, load_peft_weights(str(directory), device="cpu"), str(directory))
        return adapted.merge_and_unload()

    return _attempt("adapter for its base model", directory, load)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of all that makes text into tokens: vocabulary, merges, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    return digest(body, special, tokenizer.chat_template)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes of all parameters."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        found.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

"""Loads a policy and its tokenizer, from a directory, a file or the hub.

A model is named by one string or path:
- a directory in Hugging Face format (config.json, safetensors, tokenizer);
- a directory that holds a PEFT adapter: its base model is loaded and the adapter merged into it, in float32;
- a `.gguf` file: the weights are de-quantised and trainable, the tokenizer comes from the same file;
- anything else: a name on the Hugging Face hub.
A model that cannot be loaded, or whose files lack tensors, raises InputError with one line. Code that comes with a
model is never run, and no question on the terminal asks for it.
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
from huggingface_hub import hf_hub_download, model_info, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
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
    """Where a model is. name, options: the arguments of `from_pretrained`."""

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
    return _Source("hub", text, hub_options(text))


def hub_options(name: str) -> dict[str, Any]:
    """The options to load `name` from the hub, or from this machine's cache if the hub cannot be reached.

    Raises InputError if it is in neither. One request decides this first, because `from_pretrained` retries an
    unreachable hub for most of a minute.
    """
    try:
        model_info(name, timeout=30)
    except Exception as error:  # the hub's client raises many kinds of errors
        if not isinstance(error, HFValidationError) and isinstance(try_to_load_from_cache(name, "config.json"), str):
            return {**_NO_CODE, "local_files_only": True}
        raise InputError(f"{name}: no such file or directory, and no such model on the hub ({_line(error)})") from None
    return _NO_CODE


def _line(error: Exception) -> str:
    """The message of an error in one line: its first line, and the next one if the first ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError | AttributeError) else said


def _adapter_base(directory: Path) -> str | Path:
    """The base model that an adapter names: a path, which may be relative to the adapter, or a hub name."""
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
    """Raise InputError for an adapter whose chain of base models leads back to itself."""
    passed: list[Path] = []
    while (directory / "adapter_config.json").is_file():
        if directory.resolve() in passed:
            config = passed[0] / "adapter_config.json"
            raise InputError(f"{config}: base_model_name_or_path: leads back to the adapter (accepted: another model)")
        passed.append(directory.resolve())
        directory = Path(_adapter_base(directory))


def _attempt(what: str, model: str | Path, load: Callable[[], Loaded]) -> Loaded:
    """Run `load`. An error that a user can fix (missing, unreadable, unreachable) becomes an InputError of one line."""
    try:
        return load()
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything in its reader
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{model}: comes with code of its own, which is not run (accepted: models that transformers knows)"
            ) from None
        raise InputError(f"{model}: no {what} could be loaded ({_line(error)})") from error


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model. model: see the module.

    Raises InputError if there is no such model or it comes without a tokenizer.
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
    model: str | Path,
    dtype: Dtype | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    *,
    headless: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode, with every weight an ordinary trainable parameter.

    headless: load only its decoder. The head that its files hold, whatever it is, is left.

    dtype: of the weights. "auto" is float32 on a CPU without bfloat16 instructions and for models below 50 million
    parameters on a CPU; otherwise bfloat16. An adapter is merged in float32 before the weights are converted.

    Raises InputError if there is no such model or it is not a causal language model.
    """
    source = _locate(model)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
    if source.kind == "adapter":
        loaded = merge_adapter(load_model(_adapter_base(Path(source.name)), torch.float32), Path(source.name))
    else:
        # "auto" reads a directory in the type in which it is stored. A GGUF file has no such type.
        first = torch.float32 if source.kind == "gguf" else wanted
        what = "decoder" if headless else "causal language model"
        loaded = _attempt(what, model, lambda: _from_pretrained(source, model, first, headless))
    if wanted == "auto":
        wanted = default_dtype(sum(parameter.numel() for parameter in loaded.parameters()), device)
    loaded.to(device=device)
    for parameter in loaded.parameters():
        # Weights only. Rotary frequencies are float32 buffers; rounding them would change far positions.
        parameter.data = parameter.data.to(wanted)
    return loaded.eval()


def as_directory(model: str | Path, scratch: Path, dtype: Dtype | torch.dtype = "auto") -> str:
    """The path or hub name of a model in Hugging Face format, for programs that read neither GGUF files nor adapters.

    A `.gguf` file or an adapter is saved at `scratch`, which must not exist, with the weights of
    `load_model(model, dtype)`. Raises InputError if there is no such model.
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
    """The model without its weights: configuration, shapes and generation settings, on the "meta" device.

    model: a directory or a hub name. Raises InputError if there is no such model or it is not a causal one.
    """
    source = _locate(model)

    def load() -> PreTrainedModel:
        config = _config(source, model)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, **_NO_CODE)
        with suppress(OSError):  # a model may come without generation settings
            skeleton.generation_config = GenerationConfig.from_pretrained(source.name, **source.options)
        return skeleton

    return _attempt("causal language model", model, load)


def stored_dtype(model: str | Path) -> torch.dtype | None:
    """The data type in which a model's weights are stored, from its configuration; float32 if that names none.

    For an adapter, that of its base model. For a .gguf file, None: its weights are quantised. Raises as `load_model`.
    """
    source = _locate(model)
    if source.kind == "adapter":
        return stored_dtype(_adapter_base(Path(source.name)))
    if source.kind == "gguf":
        return None
    config = _attempt("configuration", model, lambda: _config(source, model))
    return config.dtype or config.get_text_config().dtype or torch.float32


def context_length(model: str | Path) -> int | None:
    """The longest context of a model in tokens, from its configuration; None if that names none.

    Raises as `load_model`.
    """
    source = _locate(model)
    if source.kind == "adapter":
        return context_length(_adapter_base(Path(source.name)))
    config = _attempt("configuration", model, lambda: _config(source, model))
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def generation_config(model: str | Path) -> dict[str, Any] | None:
    """What a model's generation_config.json says, nothing added; None without the file.

    For an adapter, that of its base model. Raises InputError for a file that is not a JSON object, and as `load_model`.
    """
    source = _locate(model)
    if source.kind == "adapter":
        return generation_config(_adapter_base(Path(source.name)))
    name = "generation_config.json"
    if source.kind == "hub":
        local = source.options.get("local_files_only", False)
        try:
            file = Path(hf_hub_download(source.name, name, local_files_only=local))
        except EntryNotFoundError:
            return None
    else:
        file = Path(source.name) / name
    if source.kind == "gguf" or not file.is_file():
        return None
    said = read_json(file)
    if not isinstance(said, dict):
        raise InputError(f"{file}: {shown(said)} (accepted: an object)")
    return said


def default_dtype(parameters: int, device: str | torch.device) -> torch.dtype:
    """The data type that "auto" chooses for a model of this many parameters on this device."""
    small = parameters < _SMALL and torch.device(device).type == "cpu"
    return torch.float32 if small or not has_bfloat16(device) else torch.bfloat16


def has_bfloat16(device: str | torch.device, capabilities: Mapping[str, object] | None = None) -> bool:
    """Whether the device has instructions for bfloat16 matrix products.

    Every GPU has; a CPU has with AVX512-BF16, AMX or ARM's BF16. Without them, torch emulates the products at a
    fortieth of the speed of float32 (measured on AVX2: 1.9 against 78 GFLOP/s). The CPU's flags decide, not a
    measurement: a resumed run must make the same choice on a busy machine.

    capabilities: of the CPU by name, as `torch.cpu.get_capabilities` returns them; None: those of this machine.
    """
    if torch.device(device).type != "cpu":
        return True
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return any(bool(value) for name, value in found.items() if name.endswith("bf16"))


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The size of a model, counted from its configuration.

    parameters:     number of weights; tied ones count once.
    cache_elements: keys and values per token, as a number of elements over all layers.
    context:        the longest context in tokens.
    linear_width:   Σ (inputs + outputs) over all linear layers except the head. LoRA adds this many weights per rank.
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
    """Keep transformers from drawing progress bars and printing reports while the block runs."""
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
    """The configuration of a model. Raises InputError for one that no model can have."""
    if source.kind == "directory":  # checked before transformers computes with it
        raw = read_json(Path(source.name) / "config.json")
        if isinstance(raw, dict):
            require_sizes(raw, str(model))
    config = AutoConfig.from_pretrained(source.name, **source.options)
    require_possible(config, str(model))
    return config


def _from_pretrained(
    source: _Source, model: str | Path, dtype: torch.dtype | str, headless: bool = False
) -> PreTrainedModel:
    _config(source, model)
    options: dict[str, Any] = dict(source.options)
    if source.kind == "gguf":
        options["quantization_config"] = GgufConfig(dequantize=True)
    with quiet_transformers():
        kind: Any = AutoModel if headless else AutoModelForCausalLM
        loaded, report = kind.from_pretrained(source.name, dtype=dtype, output_loading_info=True, **options)
    require_complete(report["missing_keys"], str(model))
    if report["unexpected_keys"] and not headless:
        logger.warning(
            "%s: the model has no place for %s, which its files hold", model, named(report["unexpected_keys"])
        )
    if source.kind == "gguf":
        # The weights are no longer quantised, and a policy saved from them must not say so.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        loaded.is_quantized = False
        loaded.hf_quantizer = None
    return loaded


def merge_adapter(base: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """A model with a PEFT adapter merged into its weights. `base` must not be used afterwards.

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
    """SHA-256 (hex) of everything that turns text into tokens: vocabulary, merges, special tokens, chat template."""
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

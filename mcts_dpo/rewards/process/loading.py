"""Opens a judge: its files, its family, its decoder, and its head by the names of its tensors.

In: the settings of a `process` reward. Out: a tokenizer, and a `Reader`. No code that comes with a model is run: the
decoder is loaded by its base class, the head from safetensors. What does not fit raises InputError with one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json
from mcts_dpo.models.loading import Dtype, hub_options, load_model
from mcts_dpo.models.packed_forward import why_not_readable
from mcts_dpo.rewards.process.families import FAMILIES, Family, Head, Ratio, detect
from mcts_dpo.rewards.process.layouts import token_of
from mcts_dpo.rewards.process.readouts import (
    HeadReader,
    Layer,
    RatioReader,
    Reader,
    TwoStageReader,
    pair_reader,
    probability_of,
    scaled,
    sigmoid,
)
from mcts_dpo.rewards.process.scoring import Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PATTERNS = ["*.json", "*.model", "*.jinja", "*.txt"]
_DECODER = ("model.", "transformer.", "gpt_neox.", "backbone.", "lm_head.")  # how a decoder's tensors start


@dataclass(frozen=True)
class JudgeFiles:
    """The files of a model. model: as the user named it. folder: where they are."""

    model: str
    folder: Path

    @classmethod
    def find(cls, model: str, *, weights: bool = True) -> JudgeFiles:
        """The files of a directory, or of a model on the hub, which are downloaded. weights: with the weights."""
        folder = Path(model).expanduser()
        if folder.is_dir():
            return cls(model, folder)
        if folder.exists():
            raise InputError(f"{model}: not a process reward model (accepted: a directory or a hub name)")
        offline = hub_options(model).get("local_files_only", False)
        try:
            wanted = [*_PATTERNS, "*.safetensors"] if weights else _PATTERNS
            folder = Path(snapshot_download(model, allow_patterns=wanted, local_files_only=offline))
        except Exception as error:  # the hub's client raises many kinds of errors
            raise InputError(
                f"{model}: cannot be downloaded ({type(error).__name__}: {error})".splitlines()[0]
            ) from None
        return cls(model, folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`."""
        path = self.folder / "config.json"
        if not path.is_file():
            raise InputError(f"{self.model}: not a model: no config.json")
        found = read_json(path)
        return found if isinstance(found, dict) else {}

    @cached_property
    def architectures(self) -> list[str]:
        """The classes that the configuration names."""
        return [str(name) for name in self.config.get("architectures") or ()]

    @cached_property
    def tensors(self) -> dict[str, Path]:
        """The file of each tensor, by name."""
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name.startswith("adapter"):
                continue
            try:
                with safe_open(path, "pt") as file:
                    found |= dict.fromkeys(file.keys(), path)
            except SafetensorError as error:
                raise InputError(f"{path}: damaged ({error})") from None
        return found

    def read(self, name: str) -> Tensor:
        """One tensor, float32."""
        with safe_open(self.tensors[name], "pt") as file:
            found: Tensor = file.get_tensor(name)
        return found.float()

    def family(self, asked: str | None) -> str:
        """The family's name: as asked, else as the files or the name of the model tell. Raises InputError for none."""
        name = self.model if self.folder != Path(self.model).expanduser() else self.folder.resolve().name
        files = [path.name for path in self.folder.iterdir()]
        found = asked or detect(name, files, list(self.tensors), self.architectures)
        if found is None:
            raise InputError(
                f"search.rewards.process.family: missing; the files of {self.model} do not tell it "
                f"(accepted: {', '.join(FAMILIES)})"
            )
        return found

    def head(self, names: tuple[str, ...]) -> list[Layer]:
        """The layers of the head. names: what it may be called. Raises InputError if it is not there."""
        for name in names:
            if f"{name}.weight" in self.tensors:
                return [self._layer(name)]
            inner = sorted(key[: -len(".weight")] for key in self.tensors if self._is_layer(key, name))
            if inner:
                return [self._layer(one) for one in inner]
        others = sorted(key for key in self.tensors if not key.startswith(_DECODER))
        wanted = " or ".join(f"{name}.weight" for name in names)
        told = ", ".join(others[:4]) or f"only the decoder's, such as {next(iter(self.tensors), 'none at all')}"
        raise InputError(f"{self.model}: its files lack the head: no tensor {wanted} or .0.weight (found: {told})")

    def _is_layer(self, key: str, name: str) -> bool:
        inner = key.removeprefix(f"{name}.").removesuffix(".weight")
        return key == f"{name}.{inner}.weight" and inner.isdecimal()

    def _layer(self, name: str) -> Layer:
        bias = f"{name}.bias"
        return Layer(self.read(f"{name}.weight"), self.read(bias) if bias in self.tensors else None)

    def require_language_model(self, name: str) -> None:
        """Raise InputError for a classifier: its decoder with a language model's head would be noise."""
        heads = sorted(key for key in self.tensors if key.startswith(("score", "classifier", "v_head")))
        others = [one for one in self.architectures if not one.endswith(("ForCausalLM", "LMHeadModel"))]
        if heads or others:
            what = f"its files hold the head {heads[0]}" if heads else f"it is {others[0]}"
            raise InputError(
                f"{self.model}: a classifier is no language model, and the family {name} needs one ({what}); "
                f"did you mean family={detect(self.model, (), list(self.tensors), self.architectures) or 'trl'}?"
            )


@dataclass(frozen=True, slots=True)
class OwnHead:
    """What `process_reward.json` says of a head that `mcts-dpo train --process-reward` wrote.

    tokenizer: digest of the policy's. kind: "classification" (2 outputs) or "regression" (1). range: of a regression.
    """

    tokenizer: str
    kind: str
    range: tuple[float, float]

    @classmethod
    def read(cls, folder: Path) -> OwnHead:
        """Raises InputError for a file that says something else."""
        path = folder / "process_reward.json"
        if not path.is_file():
            raise InputError(f"{path}: missing (accepted: what mcts-dpo train --process-reward writes)")
        about = read_json(path)
        about = about if isinstance(about, dict) else {}
        if about.get("format") != 1 or about.get("kind") not in ("classification", "regression"):
            raise InputError(
                f"{path}: format {about.get('format')!r}, kind {about.get('kind')!r} "
                "(accepted: format 1, kind 'classification' or 'regression')"
            )
        limits = about.get("range", [0.0, 1.0])
        numbers = isinstance(limits, list) and [type(one) for one in limits if type(one) in (int, float)]
        if not numbers or len(limits) != 2 or len(numbers) != 2 or not limits[0] < limits[1]:
            raise InputError(f"{path}: range: {limits!r} (accepted: two numbers, the smaller first)")
        return cls(str(about.get("tokenizer", "")), str(about["kind"]), (float(limits[0]), float(limits[1])))


def head_spec(files: JudgeFiles, name: str) -> tuple[int, Callable[[Tensor], Tensor]]:
    """The number of outputs of a family's head, and the map from its outputs to scores."""
    readout = FAMILIES[name].readout
    assert isinstance(readout, Head)
    if name == "mcts_dpo":
        own = OwnHead.read(files.folder)
        return (1, scaled(*own.range)) if own.kind == "regression" else (2, probability_of(1))
    return readout.outputs, probability_of(*readout.classes) if readout.classes else sigmoid


def open_reader(
    files: JudgeFiles, name: str, tokenizer: PreTrainedTokenizerBase | None, reference: str | None, dtype: Dtype
) -> Reader:
    """The reader of a model of the family `name`, on a GPU if there is one.

    tokenizer: the judge's; needed by all families but "mcts_dpo". reference: the second model of a ratio.
    """
    family: Family = FAMILIES[name]
    where = f"{files.model}: family {name}"
    if isinstance(family.readout, Head):
        layers = files.head(family.readout.names)
        outputs, to_scores = head_spec(files, name)
        if len(layers[-1].weight) != outputs:
            raise InputError(f"{where}: its head has {len(layers[-1].weight)} outputs (accepted: {outputs})")
        scorer = _scorer(files.folder, dtype, headless=True)
        width = scorer.model.config.get_text_config().hidden_size
        if layers[0].weight.shape[1] != width:
            raise InputError(f"{where}: its head reads {layers[0].weight.shape[1]} numbers, its decoder gives {width}")
        return HeadReader(scorer, [_moved(layer, scorer.model.device) for layer in layers], to_scores)
    assert tokenizer is not None
    if isinstance(family.readout, Ratio):
        if reference is None:
            raise InputError(
                f"search.rewards.process.reference: missing; {where} needs a second language model "
                "(accepted: a directory or a hub name)"
            )
        return RatioReader(_scorer(files.folder, dtype), _reference(reference, name, dtype), family.readout.coefficient)
    plus, minus = (token_of(tokenizer, word, where) for word in (family.readout.plus, family.readout.minus))
    pair = pair_reader(_scorer(files.folder, dtype), plus, minus)
    if family.readout.stages == 1:
        return pair
    closing = tokenizer.encode(", Correctness: ", add_special_tokens=False)
    return TwoStageReader(pair, plus, minus, tuple(closing))


def _reference(model: str, name: str, dtype: Dtype) -> Scorer:
    files = JudgeFiles.find(model)
    files.require_language_model(name)
    return _scorer(files.folder, dtype)


def _moved(layer: Layer, device: Any) -> Layer:
    return Layer(layer.weight.to(device), None if layer.bias is None else layer.bias.to(device))


def _scorer(folder: Path, dtype: Dtype, *, headless: bool = False) -> Scorer:
    import torch

    model: Any = load_model(folder, dtype, "cuda" if torch.cuda.is_available() else "cpu", headless=headless)
    model.requires_grad_(False)
    if not headless:
        probe = torch.arange(1, 6, device=model.device)[None] % model.config.get_text_config().vocab_size
        reason = why_not_readable(model, probe)
        if reason is not None:
            raise InputError(f"{folder}: {reason}; the process reward does not support it")
    return Scorer(model)

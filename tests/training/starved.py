"""What `torchrun` runs in the tests of memory that runs out in shards: an `mcts-dpo` command in too little of it.

    torchrun --standalone --nproc-per-node 2 -m tests.training.starved LIMITS.json COMMAND...

LIMITS: of each attempt of each process, [rank][attempt], the tokens that a forward pass may have, and after how many
passes that holds. More raise what CUDA raises, before the model's first layer; the others then wait in that layer's
collective operation.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from mcts_dpo.cli.app import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    mine = json.loads(Path(sys.argv[1]).read_text())[int(os.environ["RANK"])]
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    limit, after = mine[min(attempt, len(mine) - 1)]
    passes = 0

    def starve(module: Any, arguments: Any) -> None:
        # The model's own forward knows its tokens by keyword only; its embedding is handed them.
        global passes
        if not isinstance(module, torch.nn.Embedding):
            return
        passes += 1
        if passes > after and arguments[0].numel() > limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {arguments[0].numel()} tokens (in a test)")

    register_module_forward_pre_hook(starve)
    sys.argv = ["mcts-dpo", *sys.argv[2:]]
    main()

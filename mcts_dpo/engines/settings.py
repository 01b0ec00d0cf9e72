"""What a user may choose about an engine. Knows nothing of how any engine works."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcts_dpo.settings import Settings


class EngineSettings(Settings):
    """How the policy is run.

    engine:  which engine: "transformers" runs in this process, on a CPU or on the first CUDA device.
    slots:   sequences decoded together (≥ 1).
    dtype:   of weights and of keys and values; "auto": float32 on a CPU below 50M parameters, else bfloat16.
    threads: CPU threads (process-wide, as torch counts them); None leaves torch's own choice.
    context: longest prefix + continuation, in tokens; None: what the model was made for.
    memory:  GiB for keys and values, running sequences and remembered prefixes together. Never less than one
             sequence of `context` tokens needs, never more than `slots` (or 16, if more) of them could use.
    """

    engine: Literal["transformers"] = "transformers"
    slots: int = Field(default=64, ge=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    context: int | None = Field(default=None, ge=2)
    memory: float = Field(default=2.0, gt=0)

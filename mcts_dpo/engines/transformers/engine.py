"""The engine that runs a Hugging Face causal language model in this process, with continuous batching.

Each step of the model is one flat batch: the next token of every running sequence, and the prefixes of newly admitted
requests. Keys and values live in one pool (`attention`). A radix cache finds what is already computed, so that the
samples of a request, requests with a common beginning, and the children of a search node share a prefix and pay for it
once. The slot of a finished sequence is filled again in the next step.

The same requests and polls after `reset` give the same bytes. On a CPU a request gives the same bytes whatever else is
in the batch, because no token's numbers depend on the other tokens (`_ROW_MULTIPLE`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Finish, Occupancy, Request, Sample, Usage
from mcts_dpo.engines.model_limits import end_tokens, longest_sequence, refuse_other_shapes, weight_shapes
from mcts_dpo.engines.requests import CLOSED, Job, not_finite, scored_tokens, unservable
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.text import StopStrings
from mcts_dpo.engines.transformers import attention
from mcts_dpo.engines.transformers.batch import Batch
from mcts_dpo.engines.transformers.kernels import log_normalisers
from mcts_dpo.engines.transformers.radix_cache import Node, Positions, RadixCache
from mcts_dpo.engines.transformers.sampling import sample_tokens, uniforms
from mcts_dpo.engines.transformers.slots import Slots
from mcts_dpo.engines.transformers.weights import packing_helps, prepare_model
from mcts_dpo.models.loading import load_model, load_tokenizer, tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A step that computes this many prefix tokens admits no further request: activations take memory.
_PREFILL = 2048
# Given tokens that are scored in one step at most: each needs a row of logits.
_GIVEN = 256

# On a CPU a batch is padded to a multiple of this many tokens. For a few rows torch's matrix products use other
# kernels, which sum in another order: in float32 for 1 to 3 rows with one thread, also for 5 to 7 and 9 to 11 with
# two (MKL); in bfloat16 with packed weights (`weights`) for a single row (oneDNN). Seen in torch 2.13 with AVX-512.
# With AMX packed weights have a number of rows of their own (`weights.fixed_rows`).
_ROW_MULTIPLE = 16
_ROW_MULTIPLE_PACKED = 2


@dataclass(slots=True)
class _Score:
    """A score request in the step that is being built: what to read, and what to free afterwards."""

    job: Job
    node: Node
    extra: Positions
    reads: list[tuple[list[int], tuple[int, ...]]]  # per continuation: the logit row before each token, the tokens


class TransformersEngine:
    """See the module. `load_engine` makes it; its methods are those of `Engine`.

    The engine owns the model: its attention and its linear layers are replaced in place.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EngineSettings | None = None
    ) -> None:
        self.settings = settings or EngineSettings()
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        config = model.config.get_text_config()
        self.tokenizer = tokenizer
        self.context = longest_sequence(config, self.settings.context)
        self.slots = self.settings.slots
        self.usage = Usage()
        self._closed = False
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
        on_cpu = _ROW_MULTIPLE_PACKED if packing_helps(model) else _ROW_MULTIPLE
        self._multiple = on_cpu if self._device.type == "cpu" else 1
        self._shapes = weight_shapes(model)
        self._model = prepare_model(model)
        self._vocabulary = int(config.vocab_size)
        self._ends = end_tokens(model, tokenizer, self._vocabulary)
        self._stop_strings = StopStrings(tokenizer, self._vocabulary)
        layers, heads, width = attention.key_value_shape(config)
        affordable = int(self.settings.memory * 2**30 / (2 * layers * heads * width * self._dtype.itemsize))
        useful = max(self.settings.slots, 16) * self.context
        self._positions = 1 + max(self.context, min(useful, affordable))
        self._pool = attention.make_pool(config, self._positions, self._dtype, self._device)
        self._flat_of = np.full(self._positions, -1, np.int32)  # where in this step's batch a pool position is written
        self._slots = Slots(self.settings.slots, self.context)
        self._cache = RadixCache(self._positions)
        self._jobs: dict[int, Job] = {}
        self._sampling: deque[Job] = deque()
        self._scoring: deque[Job] = deque()
        self._ready: list[Completion] = []

    def submit(self, request: Request) -> None:
        """Queue one request. For a request that cannot be served, `poll` returns a Completion with an error.

        Raises ValueError when a request of the same id is in flight.
        """
        if request.id in self._jobs:
            raise ValueError(f"request {request.id} is already in flight")
        problem = CLOSED if self._closed else unservable(request, self._vocabulary, self.context, self._cache.capacity)
        job = Job(request, np.array(() if problem else request.prefix, np.int32))
        self._jobs[request.id] = job
        if problem is not None:
            self._complete(Completion(request.id, error=problem, final=not self._closed))
            return
        self.usage.prompt_tokens += len(job.prefix) + scored_tokens(request)
        if request.scores:
            self._scoring.append(job)
            return
        job.limit = min(request.max_tokens, self.context - len(job.prefix))
        job.samples = [None] * request.n
        job.stops = self._stop_strings.table(request.stop) if request.stop else None
        self._sampling.append(job)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """Run the model until at least one request is done, or `patience` seconds (and a step) have passed. [] if none
        is in flight."""
        until = None if patience is None else time.monotonic() + patience
        while not self._ready and self._jobs:
            try:
                self._step()
            except Exception:  # a half-finished step cannot be continued; later requests can be served
                self._drop_everything()
                raise
            if until is not None and time.monotonic() >= until:
                break
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, ids: Iterable[int]) -> None:
        """Drop these requests: their slots and memory are free for the next step. See `Engine.cancel`."""
        gone = set(ids)
        self._ready = [completion for completion in self._ready if completion.id not in gone]
        dropped = {job for job in (self._jobs.pop(one, None) for one in gone) if job is not None}
        self._sampling = deque(job for job in self._sampling if job not in dropped)
        self._scoring = deque(job for job in self._scoring if job not in dropped)
        slots = self._slots
        lost = np.array([slots.job[slot] in dropped for slot in slots.running], np.bool_)
        for slot in slots.running[lost].tolist():
            node = slots.node[slot]
            assert node is not None
            self._cache.give(slots.own[slot])
            node.pins -= 1
            slots.vacate(slot)
        slots.running = slots.running[~lost]

    def occupancy(self) -> Occupancy:
        """What the requests in flight hold now."""
        loose = self._cache.capacity - self._cache.free - self._cache.remembered
        return Occupancy(len(self._jobs), len(self._slots.running), loose, self._cache.pins)

    def reset(self) -> None:
        """Forget every cached prefix, so that later results do not depend on earlier requests.

        `usage` keeps its totals. Raises RuntimeError while requests are in flight.
        """
        self._refuse_if_busy("reset")
        self._slots = Slots(self.settings.slots, self.context)
        self._cache = RadixCache(self._positions)

    def reload(self, checkpoint: Path) -> None:
        """Take the weights of `checkpoint` (anything `load_model` reads) and forget every cached prefix.

        Raises InputError when its architecture or tokenizer differs (the engine then keeps its weights), and
        RuntimeError while requests are in flight.
        """
        self._refuse_if_busy("reload")
        fresh = load_model(checkpoint, self._dtype, self._device)
        if type(fresh) is not type(self._model):
            raise InputError(f"{checkpoint}: a {type(fresh).__name__}; the engine runs a {type(self._model).__name__}")
        refuse_other_shapes(self._shapes, weight_shapes(fresh), checkpoint)
        if tokenizer_digest(load_tokenizer(checkpoint)) != tokenizer_digest(self.tokenizer):
            raise InputError(f"{checkpoint}: another tokenizer than the engine's")
        self._model = prepare_model(fresh)
        self.reset()

    def close(self) -> None:
        """Drop the weights and the memory of keys and values; requests in flight fail. See `Engine.close`."""
        if self._closed:
            return
        lost = list(self._jobs)
        self._drop_everything()
        self._ready = [Completion(one, error=CLOSED) for one in lost]
        self._closed = True
        del self._model, self._pool

    def _drop_everything(self) -> None:
        """Drop all requests in flight and all cached prefixes."""
        for waiting in (self._jobs, self._sampling, self._scoring, self._ready):
            waiting.clear()
        self._flat_of.fill(-1)
        self.reset()

    def _refuse_if_busy(self, what: str) -> None:
        if self._jobs:
            raise RuntimeError(f"{what} while {len(self._jobs)} requests are in flight")

    def _complete(self, completion: Completion) -> None:
        del self._jobs[completion.id]
        self._ready.append(completion)

    def _step(self) -> None:
        """One forward pass: the next tokens of running sequences, and as many waiting requests as fit."""
        slots, batch = self._slots, Batch()
        running = slots.running
        if len(running):
            at = slots.length[running]
            batch.add_running(slots.last[running], at, slots.table[running, at], running)
            slots.length[running] += 1
        scores = self._admit_scores(batch)
        fresh, fresh_source = self._admit_samples(batch)
        logits = self._forward(batch)
        self.usage.prefill_tokens += batch.prefilled
        choices = [score for score in scores if score.job.request.given is None]
        if choices:
            self._finish_choices(choices, logits)
        for score in scores:
            if score.job.request.given is not None:
                self._finish_given(score, logits)
        rows = np.concatenate([running, np.array(fresh, np.int64)])
        source = np.concatenate([np.arange(len(running)), np.array(fresh_source, np.int64)])
        if len(rows):
            self._sample_rows(rows, source, logits)

    def _forward(self, batch: Batch) -> NDArray[np.float32]:
        """Run the flat batch: logits [wanted, vocabulary]."""
        wanted = len(batch.wanted)
        batch.fill_up(self._multiple)
        positions = np.concatenate(batch.positions)
        write = np.concatenate(batch.write)
        self._flat_of[write] = -1
        step = attention.Step(
            pool=self._pool,
            write=write.astype(np.int64),
            rows=np.concatenate(batch.rows),
            lengths=positions + np.int32(1),
            tables=self._slots.table,
        )
        tokens = torch.from_numpy(np.concatenate(batch.tokens).astype(np.int64)).to(self._device)
        with torch.inference_mode():
            out = self._model(
                input_ids=tokens[None],
                position_ids=torch.from_numpy(positions.astype(np.int64)).to(self._device)[None],
                use_cache=False,
                logits_to_keep=torch.tensor(batch.wanted, device=self._device),
                step=step,
            )
            logits: NDArray[np.float32] = out.logits[0].float().cpu().numpy()
        return logits[:wanted]

    def _prefill(self, job: Job, batch: Batch, row: int) -> tuple[Node, Positions, int] | None:
        """Add the part of a job's prefix that is not cached to the batch, using table row `row`.

        Returns the cache node in which the prefix ends, pinned for the caller; the prefix's positions; and the row of
        the logits after it. None when running sequences leave no memory for it.
        """
        prefix = job.prefix
        node, known = self._cache.match(prefix)
        done = len(known)
        node.pins += 1
        fresh = self._cache.take(len(prefix) - done)
        node.pins -= 1
        if fresh is None:
            return None
        node = self._cache.extend(node, prefix[done:], fresh)
        node.pins += 1
        positions = np.concatenate([known, fresh])
        self._slots.table[row, : len(prefix)] = positions
        index = int(self._flat_of[positions[-1]])
        if index < 0:
            # The logits after a prefix are not cached: when the whole prefix is known, its last token runs again.
            start = min(done, len(prefix) - 1)
            first = batch.add(prefix[start:], start, positions[start:], row)
            self._flat_of[positions[start:]] = np.arange(first, batch.size, dtype=np.int32)
            index = batch.size - 1
        return node, positions, batch.want(index)

    def _admit_samples(self, batch: Batch) -> tuple[list[int], list[int]]:
        """Fill free slots from the queue. Returns the slots, and for each the row of its first logits."""
        slots = self._slots
        fresh: list[int] = []
        source: list[int] = []
        while self._sampling and slots.free and batch.prefilled < _PREFILL:
            job = self._sampling[0]
            begun = self._prefill(job, batch, slots.free[-1])
            if begun is None:
                break
            node, positions, row = begun
            while job.admitted < job.request.n and slots.free:
                own = self._cache.take(job.limit - 1)  # the last token of a sample is never run
                if own is None:
                    break
                node.pins += 1
                fresh.append(slots.occupy(job, node, positions, own))
                source.append(row)
            node.pins -= 1
            if job.admitted < job.request.n:
                break
            self._sampling.popleft()
        return fresh, source

    def _admit_scores(self, batch: Batch) -> list[_Score]:
        """Add waiting score requests to the batch; this step answers them, or a part of their given tokens."""
        slots = self._slots
        admitted: list[_Score] = []
        row = self.settings.slots
        while self._scoring and batch.prefilled < _PREFILL:
            job = self._scoring[0]
            continuations = _continuations(job)
            slots.need_rows(row + 1 + len(continuations))
            begun = self._prefill(job, batch, row)
            if begun is None:
                break
            node, positions, before_all = begun
            extra = self._cache.take(sum(len(tokens) - 1 for tokens in continuations))
            if extra is None:
                node.pins -= 1
                break
            row += 1
            length = len(positions)
            score = _Score(job, node, extra, [])
            for continuation in continuations:
                body = np.array(continuation[:-1], np.int32)
                own, extra = extra[: len(body)], extra[len(body) :]
                read = [before_all]
                if len(body):
                    slots.table[row, :length] = positions
                    slots.table[row, length : length + len(body)] = own
                    first = batch.add(body, length, own, row)
                    read += [batch.want(first + i) for i in range(len(body))]
                    row += 1
                score.reads.append((read, continuation))
            admitted.append(score)
            self._scoring.popleft()
        return admitted

    def _finish_choices(self, scores: list[_Score], logits: NDArray[np.float32]) -> None:
        """Sum each choice's log-probabilities and normalise over the choices."""
        wanted = sorted({row for score in scores for rows, _ in score.reads for row in rows})
        logs = torch.log_softmax(torch.from_numpy(logits[wanted]).double(), dim=-1).numpy()
        at = {row: i for i, row in enumerate(wanted)}
        for score in scores:
            self._cache.give(score.extra)
            score.node.pins -= 1
            totals = np.array(
                [sum(logs[at[row], token] for row, token in zip(*read, strict=True)) for read in score.reads]
            )
            shares = np.exp(totals - totals.max())
            shares /= shares.sum()
            if np.isfinite(shares).all():
                self._complete(Completion(score.job.request.id, probabilities=tuple(shares.tolist())))
            else:
                error = not_finite(len(score.job.prefix))
                self._complete(Completion(score.job.request.id, error=error, final=True))

    def _finish_given(self, score: _Score, logits: NDArray[np.float32]) -> None:
        """Read the log-probabilities of given tokens and cache the tokens. The rest of them waits for the next step."""
        job, ((rows, tokens),) = score.job, score.reads
        normalisers = log_normalisers(logits[rows])
        broken = ~np.isfinite(normalisers)
        if broken.any():
            self._cache.give(score.extra)
        else:
            self._cache.remember(score.node, np.array(tokens[:-1], np.int32), score.extra)
        score.node.pins -= 1
        if broken.any():
            error = not_finite(len(job.prefix) + int(broken.argmax()))
            self._complete(Completion(job.request.id, error=error, final=True))
            return
        job.logprobs += (logits[rows, tokens].astype(np.float64) - normalisers).tolist()
        if len(job.logprobs) < len(job.request.given or ()):
            job.prefix = np.concatenate([job.prefix, np.array(tokens, np.int32)])
            self._scoring.appendleft(job)
            return
        self._complete(Completion(job.request.id, logprobs=tuple(job.logprobs)))

    def _sample_rows(self, rows: NDArray[np.int64], source: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Draw one token for each slot in `rows`, and finish the sequences that end with it."""
        slots = self._slots
        count = slots.count[rows]
        uniform = uniforms(slots.seed[rows], slots.sample[rows], count)
        heat, nucleus, shaping = slots.temperature[rows], slots.top_p[rows], slots.shaping(rows)
        drawn, logprobs, normaliser = sample_tokens(logits, source, heat, nucleus, uniform, shaping)
        self.usage.sampled_tokens += len(rows)
        slots.tokens[rows, count] = drawn
        slots.logprobs[rows, count] = logprobs
        slots.last[rows] = drawn
        slots.count[rows] = count = count + 1
        broken = ~np.isfinite(normaliser[source])
        if broken.any():  # a request fails as a whole
            lost = {id(slots.job[slot]) for slot in rows[broken]}
            broken = np.array([id(slots.job[slot]) in lost for slot in rows])
        ended = self._ends[drawn]
        stopped = np.zeros(len(rows), np.bool_)
        for i in np.flatnonzero(slots.has_stops[rows] & ~ended & ~broken).tolist():
            job = slots.job[rows[i]]
            assert job is not None
            assert job.stops is not None
            if job.stops[drawn[i]]:
                tokens = slots.tokens[rows[i], : count[i]].tolist()
                met = self._stop_strings.completed_visibly if job.request.visible else self._stop_strings.completed
                stopped[i] = met(tokens, job.request.stop)
        over = ended | stopped | broken | (count >= slots.limit[rows])
        slots.running = rows[~over]
        for i in np.flatnonzero(over).tolist():
            finish: Finish = "end" if ended[i] else "stop" if stopped[i] else "length"
            self._release(int(rows[i]), finish, broken=bool(broken[i]))

    def _release(self, slot: int, finish: Finish, *, broken: bool) -> None:
        """Empty a slot: its sample goes to its job, its keys and values to the cache."""
        slots = self._slots
        job, node, own = slots.job[slot], slots.node[slot], slots.own[slot]
        assert job is not None
        assert node is not None
        count = int(slots.count[slot])
        tokens = slots.tokens[slot, :count].copy()
        kept = 0 if broken else count - 1
        self._cache.give(own[kept:])
        if kept:
            self._cache.remember(node, tokens[:kept], own[:kept])
        node.pins -= 1
        slots.vacate(slot)
        if broken:
            if self._jobs.get(job.request.id) is job:  # the first of its samples to be released
                if job.admitted < job.request.n:
                    self._sampling.remove(job)
                error = not_finite(len(job.prefix) + count - 1)
                self._complete(Completion(job.request.id, error=error, final=True))
            return
        listed = tokens.tolist()
        logprobs = tuple(slots.logprobs[slot, :count].tolist())
        sample = Sample(tuple(listed), self._stop_strings.decode(listed), logprobs, finish)
        job.samples[int(slots.sample[slot])] = sample
        job.done += 1
        if job.done == job.request.n:
            self._complete(Completion(job.request.id, samples=tuple(s for s in job.samples if s is not None)))


def load_transformers_engine(model: str | Path, settings: EngineSettings) -> TransformersEngine:
    """Load a model into an engine, on the first CUDA device if there is one, else on the CPU.

    Raises InputError for a model that cannot be loaded or run.
    """
    tokenizer = load_tokenizer(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersEngine(load_model(model, settings.dtype, device), tokenizer, settings)


def _continuations(job: Job) -> tuple[tuple[int, ...], ...]:
    """What a score request scores next: all its choices, or as many given tokens as one step takes."""
    if job.request.given is None:
        return job.request.choices or ()
    done = len(job.logprobs)
    return (job.request.given[done : done + _GIVEN],)

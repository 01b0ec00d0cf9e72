"""The engine that runs a Hugging Face causal language model in this process, by continuous batching.

Requests in, completions out (see `base`). Each step of the model is one flat batch: the next token of every
running sequence beside the prefixes of newly admitted requests, without padding. Keys and values live in one
pool (`attention`); a prefix tree (`prefixes`) finds what is already computed, so that the samples of a request,
requests with a common beginning, and a node's children in a search pay for a shared prefix once. A finished
sequence's slot is refilled in the next step. The same requests and polls after `reset` give the same bytes.

Knows token ids and stop strings; knows no problems, trees or rewards.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mcts_dpo.engines import attention
from mcts_dpo.engines.base import Completion, Finish, Request, Sample, Usage
from mcts_dpo.engines.packing import pack, packing_helps
from mcts_dpo.engines.prefixes import Node, Positions, PrefixTree
from mcts_dpo.engines.sampling import sample_tokens, uniforms
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.text import StopStrings
from mcts_dpo.files import InputError
from mcts_dpo.models import load_model, load_tokenizer, tokenizer_digest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_PREFILL = 2048  # a step that computes this many prefix tokens takes on no further request: activations are memory
_END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>")


@dataclass(slots=True)
class _Job:
    """A request under way."""

    request: Request
    prefix: NDArray[np.int32]
    limit: int  # tokens per sample, the context considered
    admitted: int = 0
    done: int = 0
    samples: list[Sample | None] = field(default_factory=list)
    stops: NDArray[np.bool_] | None = None


@dataclass(slots=True)
class _Batch:
    """The flat batch of the step being put together.

    tokens, positions, write, rows: one entry per token (lists of arrays, joined when the step runs).
    wanted: flat indices whose logits are needed; `logit_row` maps a flat index to its row among them.
    """

    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    positions: list[NDArray[np.int32]] = field(default_factory=list)
    write: list[Positions] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    size: int = 0
    prefilled: int = 0
    wanted: list[int] = field(default_factory=list)
    logit_row: dict[int, int] = field(default_factory=dict)

    def add(self, tokens: NDArray[np.int32], start: int, write: Positions, row: int) -> int:
        """Append one sequence's tokens, the first at position `start`. Returns the flat index of the first."""
        first = self.size
        count = len(tokens)
        self.tokens.append(tokens)
        self.positions.append(np.arange(start, start + count, dtype=np.int32))
        self.write.append(write)
        self.rows.append(np.full(count, row, np.int32))
        self.size += count
        return first

    def want(self, index: int) -> int:
        """Ask for the logits after flat token `index`; returns their row."""
        row = self.logit_row.get(index)
        if row is None:
            row = self.logit_row[index] = len(self.wanted)
            self.wanted.append(index)
        return row


@dataclass(slots=True)
class _Score:
    """A score request in the step being put together: what to read off and what to give back afterwards."""

    job: _Job
    node: Node
    extra: Positions
    reads: list[tuple[list[int], tuple[int, ...]]]  # per choice: logit rows, tokens


class TransformersEngine:
    """See the module. Made by `load_engine`; `Engine` is its protocol.

    Arrays with one row per slot (S = slots, C = context):
      table      int32 [S + more, C]  pool positions of the slot's sequence in order; rows beyond S serve score requests
      length     int32 [S]     tokens of the sequence whose keys and values are in the pool
      last       int32 [S]     the token sampled last, not yet in the pool
      count      int32 [S]     tokens sampled so far
      tokens     int32 [S, C]  those tokens;  logprobs float64 [S, C] their log-probabilities
      limit, temperature, top_p, seed, sample   [S]  what the request asked
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EngineSettings | None = None
    ) -> None:
        self.settings = settings or EngineSettings()
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self.tokenizer = tokenizer
        self.usage = Usage()
        self._shapes = _shapes(model)
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
        self._model = _prepare(model)
        config = model.config.get_text_config()
        self.context = _context(config, self.settings)
        self._vocabulary = int(config.vocab_size)
        self._ends = _end_tokens(model, tokenizer, self._vocabulary)
        self._stop_strings = StopStrings(tokenizer, self._vocabulary)
        layers, heads, width = attention.key_value_shape(config)
        per_token = 2 * layers * heads * width * self._dtype.itemsize
        most = max(self.settings.slots, 16) * self.context
        self._positions = 1 + max(self.context, min(most, int(self.settings.memory * 2**30 / per_token)))
        self._pool = attention.make_pool(config, self._positions, self._dtype, self._device)
        slots = self.settings.slots
        self._table = np.zeros((slots, self.context), np.int32)
        self._length = np.zeros(slots, np.int32)
        self._last = np.zeros(slots, np.int32)
        self._count = np.zeros(slots, np.int32)
        self._tokens = np.empty((slots, self.context), np.int32)
        self._logprobs = np.empty((slots, self.context), np.float64)
        self._limit = np.zeros(slots, np.int32)
        self._temperature = np.zeros(slots, np.float64)
        self._top_p = np.ones(slots, np.float64)
        self._seed = np.zeros(slots, np.uint64)
        self._sample = np.zeros(slots, np.int64)
        self._has_stops = np.zeros(slots, np.bool_)
        self._flat_of = np.full(self._positions, -1, np.int32)  # where in this step's batch a pool position is written
        self._jobs: dict[int, _Job] = {}
        self._ready: list[Completion] = []
        self._sampling: deque[_Job] = deque()
        self._scoring: deque[_Job] = deque()
        self._slot_job: list[_Job | None] = [None] * slots
        self._slot_node: list[Node | None] = [None] * slots
        self._slot_own: list[Positions] = [np.empty(0, np.int32)] * slots
        self._running = np.empty(0, np.int64)
        self._free_slots = list(range(slots - 1, -1, -1))
        self._tree = PrefixTree(self._positions)

    def submit(self, request: Request) -> None:
        """Queue one request. A request that cannot be served is answered by `poll` with Completion.error.

        Raises ValueError when a request of the same id is under way.
        """
        if request.id in self._jobs:
            raise ValueError(f"request {request.id} is already under way")
        problem = self._unservable(request)
        prefix = np.asarray(request.prefix if problem is None else (), dtype=np.int32)
        job = _Job(request, prefix, 0)
        self._jobs[request.id] = job
        if problem is not None:
            self._fail(job, problem)
            return
        self.usage.prompt_tokens += len(prefix)
        if request.choices is not None:
            self.usage.prompt_tokens += sum(len(choice) - 1 for choice in request.choices)
            self._scoring.append(job)
            return
        job.limit = min(request.max_tokens, self.context - len(prefix))
        job.samples = [None] * request.n
        if request.stop:
            job.stops = self._stop_strings.table(request.stop)
        self._sampling.append(job)

    def poll(self) -> list[Completion]:
        """Run the model until at least one request is done. [] if none is under way."""
        while not self._ready and self._jobs:
            self._step()
        ready, self._ready = self._ready, []
        return ready

    def reset(self) -> None:
        """Forget every remembered prefix, so that what follows does not depend on what came before.

        Usage goes on counting. Raises RuntimeError while requests are under way.
        """
        self._idle("reset")
        self._running = np.empty(0, np.int64)
        self._free_slots = list(range(self.settings.slots - 1, -1, -1))
        self._tree = PrefixTree(self._positions)

    def reload(self, checkpoint: Path) -> None:
        """Take the weights of `checkpoint` (anything `load_model` reads) and forget every remembered prefix.

        Raises InputError when its architecture or tokenizer is another, RuntimeError while requests are under way.
        """
        self._idle("reload")
        fresh = load_model(checkpoint, self._dtype, self._device)
        if type(fresh) is not type(self._model):
            raise InputError(f"{checkpoint}: a {type(fresh).__name__}; the engine runs a {type(self._model).__name__}")
        shapes = _shapes(fresh)
        for name in sorted(self._shapes.keys() | shapes.keys()):
            ours, theirs = self._shapes.get(name), shapes.get(name)
            if ours != theirs:
                raise InputError(
                    f"{checkpoint}: another architecture than the engine's: {name} is {theirs or 'missing'}, "
                    f"in the engine it is {ours or 'missing'}"
                )
        if tokenizer_digest(load_tokenizer(checkpoint)) != tokenizer_digest(self.tokenizer):
            raise InputError(f"{checkpoint}: another tokenizer than the engine's")
        self._model = _prepare(fresh)
        self.reset()

    def _idle(self, what: str) -> None:
        if self._jobs:
            raise RuntimeError(f"{what} while {len(self._jobs)} requests are under way")

    # --- requests in, completions out ---------------------------------------------------------------------------

    def _unservable(self, request: Request) -> str | None:
        """Why this request cannot be served, or None."""
        length = len(request.prefix)
        if length == 0:
            return "prefix: empty (accepted: at least one token)"
        choices = request.choices
        wrong = next((t for t in request.prefix if not 0 <= t < self._vocabulary), None)
        if wrong is None:
            wrong = next((t for c in choices or () for t in c if not 0 <= t < self._vocabulary), None)
        if wrong is not None:
            return f"token {wrong} is not in the vocabulary of {self._vocabulary}"
        if choices is not None:
            if not choices or not all(choices):
                return "choices: empty (accepted: at least one choice of at least one token each)"
            needed = length + max(len(choice) for choice in choices)
            if needed > self.context:
                return f"prefix and longest choice: {needed} tokens exceed the context of {self.context}"
            total = length + sum(len(choice) - 1 for choice in choices)
            if total > self._tree.capacity:
                return f"choices: {total} tokens exceed the key-value memory of {self._tree.capacity} tokens"
            return None
        if length >= self.context:
            return f"prefix: {length} tokens leave no room in the context of {self.context}"
        if request.n < 1:
            return f"n: {request.n} (accepted: at least 1)"
        if request.max_tokens < 1:
            return f"max_tokens: {request.max_tokens} (accepted: at least 1)"
        if not (0 <= request.temperature < math.inf):
            return f"temperature: {request.temperature} (accepted: 0 or more)"
        if not 0 < request.top_p <= 1:
            return f"top_p: {request.top_p} (accepted: above 0, at most 1)"
        if not 0 <= request.seed < 2**64:
            return f"seed: {request.seed} (accepted: 0 to 2**64 - 1)"
        if not all(request.stop):
            return "stop: an empty string"
        return None

    def _complete(self, completion: Completion) -> None:
        del self._jobs[completion.id]
        self._ready.append(completion)

    def _fail(self, job: _Job, problem: str) -> None:
        self._complete(Completion(job.request.id, error=problem))

    # --- one step of the model ----------------------------------------------------------------------------------

    def _step(self) -> None:
        batch = _Batch()
        running = self._running
        if len(running):
            at = self._length[running]
            batch.tokens.append(self._last[running])
            batch.positions.append(at)
            batch.write.append(self._table[running, at])
            batch.rows.append(running.astype(np.int32))
            batch.size = len(running)
            batch.wanted = list(range(len(running)))
            batch.logit_row = {i: i for i in batch.wanted}
            self._length[running] += 1
        scores = self._admit_scores(batch)
        fresh, fresh_source = self._admit_samples(batch)
        logits = self._forward(batch)
        self.usage.prefill_tokens += batch.prefilled
        rows = np.concatenate([running, np.array(fresh, np.int64)])
        source = np.concatenate([np.arange(len(running)), np.array(fresh_source, np.int64)])
        if scores:
            self._finish_scores(scores, logits)
        if len(rows):
            self._sample_rows(rows, source, logits)

    def _forward(self, batch: _Batch) -> NDArray[np.float32]:
        """Run the flat batch; float32 logits [wanted, vocabulary]."""
        positions = np.concatenate(batch.positions)
        write = np.concatenate(batch.write)
        self._flat_of[write] = -1
        step = attention.Step(
            pool=self._pool,
            write=write.astype(np.int64),
            rows=np.concatenate(batch.rows),
            lengths=positions + np.int32(1),
            tables=self._table,
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
            return out.logits[0].float().cpu().numpy()  # type: ignore[no-any-return]

    def _prefill(self, job: _Job, batch: _Batch, row: int) -> tuple[Node, Positions, int] | None:
        """Put what is unknown of job's prefix into the batch. Returns its node (pinned), its positions, and the
        logit row after its last token; None when running sequences leave no memory for it."""
        prefix = job.prefix
        node, known = self._tree.match(prefix)
        node.pins += 1
        done = len(known)
        fresh = self._tree.take(len(prefix) - done)
        if fresh is None:
            node.pins -= 1
            return None
        if len(fresh):
            node.pins -= 1
            node = self._tree.extend(node, prefix[done:], fresh)
            node.pins += 1
        positions = np.concatenate([known, fresh])
        self._table[row, : len(prefix)] = positions
        last = int(positions[-1])
        index = int(self._flat_of[last])
        if index < 0:
            # A prefix that is known to its end still has to be asked what follows: its last token runs again.
            start = min(done, len(prefix) - 1)
            write = positions[start:]
            first = batch.add(prefix[start:], start, write, row)
            self._flat_of[write] = np.arange(first, batch.size, dtype=np.int32)
            batch.prefilled += len(write)
            index = batch.size - 1
        return node, positions, batch.want(index)

    def _admit_samples(self, batch: _Batch) -> tuple[list[int], list[int]]:
        """Fill free slots from the queue. Returns the slots and the logit row that each draws its first token from."""
        slots: list[int] = []
        source: list[int] = []
        while self._sampling and self._free_slots:
            job = self._sampling[0]
            if batch.prefilled >= _PREFILL:
                break
            begun = self._prefill(job, batch, self._free_slots[-1])
            if begun is None:
                break
            node, positions, row = begun
            length = len(job.prefix)
            request = job.request
            while job.admitted < request.n and self._free_slots:
                own = self._tree.take(job.limit - 1)
                if own is None:
                    break
                slot = self._free_slots.pop()
                node.pins += 1
                self._table[slot, :length] = positions
                self._table[slot, length : length + len(own)] = own
                self._length[slot] = length
                self._count[slot] = 0
                self._limit[slot] = job.limit
                self._temperature[slot] = request.temperature
                self._top_p[slot] = request.top_p
                self._seed[slot] = request.seed
                self._sample[slot] = job.admitted
                self._has_stops[slot] = job.stops is not None
                self._slot_job[slot], self._slot_node[slot], self._slot_own[slot] = job, node, own
                slots.append(slot)
                source.append(row)
                job.admitted += 1
            node.pins -= 1
            if job.admitted < request.n:
                break
            self._sampling.popleft()
        return slots, source

    def _admit_scores(self, batch: _Batch) -> list[_Score]:
        admitted: list[_Score] = []
        row = self.settings.slots
        while self._scoring:
            job = self._scoring[0]
            choices = job.request.choices
            assert choices is not None
            cost = len(job.prefix) + sum(len(choice) - 1 for choice in choices)
            if batch.prefilled >= _PREFILL:
                break
            self._grow_table(row + 1 + len(choices))
            begun = self._prefill(job, batch, row)
            if begun is None:
                break
            node, positions, first = begun
            extra = self._tree.take(cost - len(job.prefix))
            if extra is None:
                node.pins -= 1
                break
            row += 1
            length = len(job.prefix)
            used = 0
            reads = []
            for choice in choices:
                body = np.array(choice[:-1], np.int32)
                logit_rows = [first]
                if len(body):
                    own = extra[used : used + len(body)]
                    used += len(body)
                    self._table[row, :length] = positions
                    self._table[row, length : length + len(body)] = own
                    start = batch.add(body, length, own, row)
                    batch.prefilled += len(body)
                    logit_rows += [batch.want(start + i) for i in range(len(body))]
                    row += 1
                reads.append((logit_rows, choice))
            admitted.append(_Score(job, node, extra, reads))
            self._scoring.popleft()
        return admitted

    def _grow_table(self, rows: int) -> None:
        if rows > len(self._table):
            grown = np.zeros((rows + 64, self.context), np.int32)
            grown[: len(self._table)] = self._table
            self._table = grown

    def _finish_scores(self, scores: list[_Score], logits: NDArray[np.float32]) -> None:
        wanted = sorted({row for score in scores for rows, _ in score.reads for row in rows})
        logs = torch.log_softmax(torch.from_numpy(logits[wanted]).double(), dim=-1).numpy()
        at = {row: i for i, row in enumerate(wanted)}
        for score in scores:
            self._tree.give(score.extra)
            score.node.pins -= 1
            totals = np.array(
                [sum(logs[at[row], token] for row, token in zip(*read, strict=True)) for read in score.reads]
            )
            shares = np.exp(totals - totals.max())
            shares /= shares.sum()
            if np.isfinite(shares).all():
                self._complete(Completion(score.job.request.id, probabilities=tuple(shares.tolist())))
            else:
                self._fail(score.job, _not_finite(len(score.job.prefix)))

    def _sample_rows(self, rows: NDArray[np.int64], source: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Draw one token for each slot in `rows`; finish those that end; the rest run on."""
        count = self._count[rows]
        uniform = uniforms(self._seed[rows], self._sample[rows], count)
        drawn, logprobs, normaliser = sample_tokens(logits, source, self._temperature[rows], self._top_p[rows], uniform)
        self.usage.sampled_tokens += len(rows)
        self._tokens[rows, count] = drawn
        self._logprobs[rows, count] = logprobs
        self._last[rows] = drawn
        self._count[rows] = count = count + 1
        ended = self._ends[drawn]
        full = count >= self._limit[rows]
        broken = ~np.isfinite(normaliser[source])
        if broken.any():
            lost = {id(self._slot_job[slot]) for slot in rows[broken]}
            broken = np.array([id(self._slot_job[slot]) in lost for slot in rows])
        stopped = np.zeros(len(rows), np.bool_)
        for i in np.flatnonzero(self._has_stops[rows] & ~ended & ~broken).tolist():
            job = self._slot_job[rows[i]]
            assert job is not None
            assert job.stops is not None
            if job.stops[drawn[i]]:
                tokens = self._tokens[rows[i], : count[i]].tolist()
                stopped[i] = self._stop_strings.completed(tokens, job.request.stop)
        over = ended | full | stopped | broken
        self._running = rows[~over]
        for i in np.flatnonzero(over).tolist():
            finish: Finish = "end" if ended[i] else "stop" if stopped[i] else "length"
            self._release(int(rows[i]), finish, broken=bool(broken[i]))

    def _release(self, slot: int, finish: Finish, *, broken: bool) -> None:
        """Empty a slot: its sample goes to its job, its keys and values to the tree."""
        job, node, own = self._slot_job[slot], self._slot_node[slot], self._slot_own[slot]
        assert job is not None
        assert node is not None
        count = int(self._count[slot])
        tokens = self._tokens[slot, :count].copy()
        kept = 0 if broken else count - 1  # the last token was never run
        self._tree.give(own[kept:])
        if kept:
            self._tree.remember(node, tokens[:kept], own[:kept])
        node.pins -= 1
        self._slot_job[slot] = self._slot_node[slot] = None
        self._free_slots.append(slot)
        if job.request.id not in self._jobs or self._jobs[job.request.id] is not job:
            return
        if broken:
            if job.admitted < job.request.n:
                self._sampling.remove(job)
            self._fail(job, _not_finite(len(job.prefix) + count - 1))
            return
        listed = tokens.tolist()
        logprobs = tuple(self._logprobs[slot, :count].tolist())
        sample = Sample(tuple(listed), self._stop_strings.decode(listed), logprobs, finish)
        job.samples[int(self._sample[slot])] = sample
        job.done += 1
        if job.done == job.request.n:
            self._complete(Completion(job.request.id, samples=tuple(s for s in job.samples if s is not None)))


def _not_finite(length: int) -> str:
    return f"the model's logits after {length} tokens are NaN or infinite"


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """The shape of every weight."""
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def _prepare(model: PreTrainedModel) -> PreTrainedModel:
    """The model, from now on the engine's own: its attention led to the pool, its weights packed.

    Raises InputError for a model whose attention is not plain.
    """
    config = model.config.get_text_config()
    name = type(model).__name__
    if not getattr(model, "_supports_attention_backend", False):
        raise InputError(
            f"{name}: the transformers engine needs a model whose attention can be replaced; this one's cannot"
        )
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds or getattr(config, "attn_logit_softcapping", None):
        what = ", ".join(sorted(kinds)) or "soft-capped attention"
        raise InputError(f"{name}: the transformers engine runs plain softmax attention; this model has {what}")
    model.set_attn_implementation(attention.NAME)
    model.eval().requires_grad_(False)
    if packing_helps(model):
        pack(model)
    return model


def _context(config: PretrainedConfig, settings: EngineSettings) -> int:
    """The longest sequence: the model's own limit, or less if the settings say so."""
    most = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        most = min(most, int(window))  # within its window sliding attention is plain attention
    if settings.context is not None and settings.context > most:
        raise InputError(f"engine.context: {settings.context} exceeds what the model was made for ({most})")
    return settings.context or most


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> NDArray[np.bool_]:
    """bool [vocabulary]: tokens that end a sequence, by generation config, config, tokenizer, or name."""
    ids: set[int] = set()
    for holder in (model.generation_config, model.config.get_text_config(), tokenizer):
        given = getattr(holder, "eos_token_id", None)
        ids.update([given] if isinstance(given, int) else given or ())
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    known = tokenizer.get_vocab()
    ids.update(known[name] for name in _END_NAMES if known.get(name) in special)
    table = np.zeros(vocabulary, np.bool_)
    table[[i for i in ids if 0 <= i < vocabulary]] = True
    return table

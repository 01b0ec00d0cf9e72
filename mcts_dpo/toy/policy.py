"""The built-in policy: a tiny Llama, taught in about a minute by demonstrations that carry wrong habits.

In: a seed and `WarmStartSettings`. Out: a Hugging Face directory like that of any other policy, its accuracy, and how
well it judges itself. It is taught with exactly the tokens that `prompts` makes under `toy_prompt()`.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from, whole
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.settings import Settings
from mcts_dpo.common.statistics import area_under_roc
from mcts_dpo.data import Problem
from mcts_dpo.engines import Completion, Engine, EngineSettings, Request
from mcts_dpo.engines.coroutine import gather
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.loading import quiet_transformers
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, self_evaluation
from mcts_dpo.search.runner import run
from mcts_dpo.toy.horizon import CONTEXT, HABITS, SOLUTION_TOKENS, TAUGHT_EVENTS
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import Demonstration, Habits, Judgement, demonstrations, judgements, make_rehearsals
from mcts_dpo.training.data.batches import Sequences, forward_passes, make_batch, sequences
from mcts_dpo.training.logprobs import score
from mcts_dpo.training.objectives.common import negative_log_likelihood
from verifiers import extract_answer, verify

MAX_TOKENS = 64
"""An upper bound on the length of a solution in this world, in tokens."""

_PADDED_TOKENS = 1100
"""Tokens of one forward pass. An update is cut into a few passes of similar lengths, to avoid padding."""


class WarmStartSettings(Settings):
    """How the policy is made and taught.

    demonstrations, events, habits: number of stories, their numbers of events, and their wrong habits.
    steps:            updates; the learning rate falls to 0 along a cosine over them.
    batch_size:       demonstrations per update.
    judgements:       self-evaluation questions per update, in addition to the demonstrations.
    lr, warmup:       AdamW's peak learning rate, and the updates until it is reached.
    check_every:      updates between two measurements on development problems, for the progress display only.
    development:      number of development problems.
    width, layers, heads, feed_forward: of the Llama; the defaults make 127,000 parameters.
    context:          longest sequence in tokens that the policy can read.
    max_tokens:       more than any solution is long, in tokens.
    threads:          of torch. The policy is so small that a second thread would only wait for the first.
    """

    demonstrations: int = Field(6000, ge=1)
    events: tuple[int, ...] = (1, 2, 3)
    habits: Habits = Habits()
    steps: int = Field(1200, ge=1)
    batch_size: int = Field(32, ge=1)
    judgements: int = Field(8, ge=0)
    lr: float = Field(4e-3, gt=0)
    warmup: int = Field(50, ge=1)
    check_every: int = Field(200, ge=1)
    development: int = Field(400, ge=1)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    feed_forward: int = Field(176, ge=8)
    context: int = Field(256, ge=64)
    max_tokens: int = Field(64, ge=1)
    threads: int = Field(1, ge=1)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The result of the warm start; also in `warm_start.json` next to the weights.

    policy:              the Hugging Face directory.
    accuracy:            greedy, on development problems that no demonstration shows.
    self_evaluation_auc: see `self_evaluation_auc`; None if all solutions were right, or all wrong.
    """

    policy: Path
    accuracy: float
    self_evaluation_auc: float | None


def horizon_policy() -> WarmStartSettings:
    """How a policy of the long-horizon world is made and taught (see horizon.py)."""
    return WarmStartSettings(
        events=TAUGHT_EVENTS, habits=HABITS, steps=1500, context=CONTEXT, max_tokens=SOLUTION_TOKENS
    )


def toy_prompt() -> PromptSettings:
    """The prompt of the toy policy: the question, a line end, then the solution, one calculation per line."""
    return PromptSettings(
        style="plain",
        template="{question}\n",
        separator="\n",
        step_end="\n",
        answer_style="answer_is",
        self_evaluation_question="Right so far?",
        yes="yes",
        no="no",
    )


def warm_start(
    out: Path, *, seed: int, settings: WarmStartSettings | None = None, progress: Progress = silent
) -> WarmStart:
    """Make the tiny policy, teach it, and write it to `out`, whole or not at all.

    Loss falls on solutions, their end-of-sequence token, and yes/no only. Same seed, same machine: same bytes.
    """
    settings = settings or WarmStartSettings()
    if settings.width % (2 * settings.heads):
        raise InputError(
            f"heads: {settings.heads} (accepted: a number such that 2 · heads divides width, {settings.width})"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        return _warm_start(Path(out), seed, settings, progress)
    finally:
        torch.set_num_threads(threads)


def _warm_start(out: Path, seed: int, settings: WarmStartSettings, progress: Progress) -> WarmStart:
    prompt = toy_prompt()
    tokenizer = toy_tokenizer(" ".join((prompt.self_evaluation_question, prompt.yes, prompt.no)))
    shown = shown_demonstrations(settings, seed)
    judged = judgements(shown, seed)
    sequences = teaching_sequences(shown, judged, tokenizer, prompt)
    questions = {demonstration.problem.question for demonstration in shown}
    rehearsals = make_rehearsals(2 * settings.development, seed, events=settings.events, exclude=questions)
    development, fresh = rehearsals[: settings.development], rehearsals[settings.development :]
    model = tiny_llama(settings, tokenizer, seed)

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    accuracy = 0.0
    for update in range(1, settings.steps + 1):
        rows = rows_of_update(update, seed, len(shown), len(judged), settings.batch_size, settings.judgements)
        learn(model, optimizer, sequences, rows, settings.lr * rate(update, settings.steps, settings.warmup))
        figures = {}
        if update % settings.check_every == 0 or update == settings.steps:
            accuracy = _accuracy(development, _engine(model, tokenizer), prompt, settings.max_tokens)
            figures["accuracy"] = accuracy
        progress("warm start", update, settings.steps, **figures)
    auc = self_evaluation_auc(fresh, _engine(model, tokenizer), prompt, max_tokens=settings.max_tokens, seed=seed)
    result = WarmStart(out, accuracy, auc)
    with whole(out) as scratch:
        save(model, tokenizer, scratch)
        record = {**asdict(result), "seed": seed, "settings": settings.model_dump(mode="json")}
        del record["policy"]
        (scratch / "warm_start.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return result


def teach(
    out: Path,
    shown: Sequence[Demonstration],
    tokenizer: PreTrainedTokenizerFast,
    prompt: PromptSettings,
    settings: WarmStartSettings,
    *,
    seed: int,
    told: str,
    progress: Progress = silent,
) -> None:
    """Make the tiny policy of another world, teach it demonstrations, and write it to `out`, whole or not at all.

    told: the name of the stage, for `progress`. The same seed on the same machine gives the same bytes. It learns no
    self-evaluation.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        sequences = teaching_sequences(shown, [], tokenizer, prompt)
        model = tiny_llama(settings, tokenizer, seed)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        for update in range(1, settings.steps + 1):
            rows = np.random.default_rng([seed, update]).integers(len(shown), size=settings.batch_size)
            learn(model, optimizer, sequences, rows, settings.lr * rate(update, settings.steps, settings.warmup))
            progress(told, update, settings.steps)
    finally:
        torch.set_num_threads(threads)
    with whole(Path(out)) as scratch:
        save(model, tokenizer, scratch)
        record = {"seed": seed, "settings": settings.model_dump(mode="json")}
        (scratch / "warm_start.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def self_evaluation_auc(
    problems: Sequence[Problem],
    engine: Engine,
    prompt: PromptSettings,
    *,
    samples: int = 4,
    temperature: float = 0.8,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
) -> float | None:
    """The chance that the policy gives one of its right solutions a higher P(yes) than one of its wrong ones.

    `samples` solutions of each problem (with reference answers) are drawn; the policy is asked about each
    after its last token. 0.5 is guessing, 1 is perfect; None if all solutions were right, or all wrong.
    """
    prefixes = [prompt_tokens(problem, engine.tokenizer, prompt) for problem in problems]
    drawn = _completed(
        engine,
        [
            Request(0, prefix, samples, max_tokens, temperature, 1.0, prompt.stop, seed_from("auc", seed, problem.id))
            for problem, prefix in zip(problems, prefixes, strict=True)
        ],
    )
    suffix, choices = self_evaluation(engine.tokenizer, prompt)
    asked: list[Request] = []
    right: list[bool] = []
    for problem, prefix, completion in zip(problems, prefixes, drawn, strict=True):
        for sample in completion.samples:
            tokens = [token for token in sample.tokens if token != engine.tokenizer.eos_token_id]
            asked.append(Request(0, (*prefix, *tokens, *suffix), choices=choices))
            right.append(bool(verify(problem.answer or "", extract_answer(sample.text, prompt.answer_style))))
    return area_under_roc([answer.probabilities[0] for answer in _completed(engine, asked)], right)


def shown_demonstrations(settings: WarmStartSettings, seed: int) -> list[Demonstration]:
    """The demonstrations that the warm start of this seed learns from."""
    return demonstrations(settings.demonstrations, seed, settings.habits, events=settings.events)


def _completed(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    (found,) = run([gather(requests)], engine)
    return found if isinstance(found, list) else []


def teaching_sequences(
    shown: Sequence[Demonstration],
    judged: Sequence[Judgement],
    tokenizer: PreTrainedTokenizerFast,
    prompt: PromptSettings,
) -> Sequences:
    """The demonstrations, then the judgements, as sequences. Only their replies are scored."""
    suffix, (yes, no) = self_evaluation(tokenizer, prompt)
    contexts: list[tuple[int, ...]] = []
    replies: list[tuple[int, ...]] = []

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    for demonstration in shown:
        assert demonstration.problem.solution is not None
        contexts.append(prompt_tokens(demonstration.problem, tokenizer, prompt))
        replies.append((*tokens(demonstration.problem.solution), tokenizer.eos_token_id))
    for judgement in judged:
        contexts.append((*prompt_tokens(judgement.problem, tokenizer, prompt), *tokens(judgement.text()), *suffix))
        replies.append(yes if judgement.right else no)
    scored_from = np.array([len(context) for context in contexts], dtype=np.int64)
    parts = [
        [np.array(context, dtype=np.int32), np.array(reply, dtype=np.int32)]
        for context, reply in zip(contexts, replies, strict=True)
    ]
    return sequences(parts, scored_from, scored_from, np.ones(len(parts)))


def rows_of_update(
    update: int, seed: int, shown: int, judged: int, demonstrations: int, judgements: int
) -> NDArray[np.int64]:
    """The rows of one update: demonstrations are rows [0, shown), judgements [shown, shown + judged)."""
    rng = np.random.default_rng([seed, update])
    drawn = rng.integers(shown, size=demonstrations), shown + rng.integers(judged, size=judgements)
    return np.concatenate(drawn).astype(np.int64)


def rate(update: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate in update 1, 2, …: a linear rise, under a cosine that falls to 0."""
    return min(1.0, update / warmup) * 0.5 * (1 + math.cos(math.pi * (update - 1) / steps))


def learn(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, sequences: Sequences, rows: NDArray[np.int64], lr: float
) -> None:
    """One AdamW update on the mean negative log-likelihood of the rows' scored tokens."""
    total = float((sequences.lengths - sequences.scored_from)[rows].sum())
    for part in forward_passes(sequences, rows, _PADDED_TOKENS):
        scores = score(model, make_batch(sequences, part))
        torch.autograd.backward(negative_log_likelihood(scores.tokens, total=total))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def tiny_llama(settings: WarmStartSettings, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untaught policy. settings: its width, layers, heads, feed_forward and context."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        # Three times the usual scale: a narrow and shallow model then learns in half as many updates.
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()  # there is no dropout to turn on


def _engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    # A copy: an engine changes its model.
    return TransformersEngine(copy.deepcopy(model), tokenizer, EngineSettings(slots=256, dtype="float32"))


def _accuracy(problems: Sequence[Problem], engine: Engine, prompt: PromptSettings, max_tokens: int) -> float:
    settings = EvaluationSettings(max_tokens=max_tokens, chunk=len(problems))
    correct = evaluate(problems, engine, prompt=prompt, settings=settings).correct
    return sum(correct) / len(correct)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the policy as a Hugging Face directory."""
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Packed step-DPO beside TRL's DPOTrainer and our own unpacked path: time, exactness, memory, share of the limit.

    python -m benchmarks.training [--json FILE] [--report FILE] [--peer PYTHON] [--real-model DIRECTORY] [--repeats N]

The same model, the same pairs, one thread, float32, in one run: policy forward, backward and reference forward of every
pair, CPU seconds, repeats of the sides in turn, the median of each. TRL gets the batch size that is fastest for it on
the first shape. That both compute the same is checked: their gradients are compared. It is never run by tests.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mcts_dpo.models.trie import make_trie
from mcts_dpo.training import train
from mcts_dpo.training.data.batches import sequences
from mcts_dpo.training.data.collate import TrainingData
from mcts_dpo.training.settings import TrainingSettings
from mcts_dpo.training.tasks import PolicyTrainingTask
from tests.training.world import VOCABULARY, digest_of, pairs_of, tiny_policy

Ids = list[int]
Pair = tuple[Ids, Ids, Ids]
PROMPT = 122
STEP = (24, 52)
BATCHES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Shape:
    """Pairs of (prompt with the steps so far, chosen step, rejected step)."""

    name: str
    kind: str
    pairs: list[Pair]

    @property
    def naive_tokens(self) -> int:
        return sum(2 * len(before) + len(chosen) + len(rejected) for before, chosen, rejected in self.pairs)

    @property
    def unique_tokens(self) -> int:
        return len(make_trie([np.array(before + step, np.int32) for before, *two in self.pairs for step in two]))


class Words:
    """Random ids below the vocabulary, of random lengths."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self.generator, self.vocabulary = np.random.default_rng(seed), vocabulary

    def __call__(self, low: int, high: int | None = None) -> Ids:
        size = low if high is None else int(self.generator.integers(low, high))
        found: Ids = self.generator.integers(3, self.vocabulary, size).tolist()
        return found


def spine(
    words: Words, depth: int, children: tuple[int, int], *, every: bool = False, prompt: int = PROMPT
) -> list[Pair]:
    """A path whose every state has siblings: the first is the best and continues the path, the last is the worst."""
    before, pairs = words(prompt), []
    for _ in range(depth):
        steps = [words(*STEP) for _ in range(int(words.generator.integers(children[0], children[1] + 1)))]
        two = [(a, b) for a in range(len(steps)) for b in range(a + 1, len(steps))] if every else [(0, len(steps) - 1)]
        pairs += [(before, steps[a], steps[b]) for a, b in two]
        before = before + steps[0]
    return pairs


def grown(words: Words, depth: int, children: int, expanded: int, *, every: bool = False) -> list[Pair]:
    """A tree of which a search has expanded so many states, always one of those that are there, not below `depth`."""
    pairs: list[Pair] = []
    open_states = [(words(PROMPT), 0)]
    while open_states and expanded:
        before, level = open_states.pop(int(words.generator.integers(len(open_states))))
        steps = [words(*STEP) for _ in range(children)]
        two = [(a, b) for a in range(children) for b in range(a + 1, children)] if every else [(0, children - 1)]
        pairs += [(before, steps[a], steps[b]) for a, b in two]
        if level + 1 < depth:
            open_states += [(before + step, level + 1) for step in steps]
        expanded -= 1
    return pairs


def flat(words: Words, pairs: int, prompt: tuple[int, int], completion: tuple[int, int]) -> list[Pair]:
    return [(words(*prompt), words(*completion), words(*completion)) for _ in range(pairs)]


def shapes(vocabulary: int) -> list[Shape]:
    def words(seed: int) -> Words:
        return Words(vocabulary, seed)

    return [
        Shape("spine depth 6, 2 children", "best/worst", spine(words(0), 6, (2, 2))),
        Shape("MCTS depth 4, 3 children", "best/worst", grown(words(1), 4, 3, 15)),
        Shape("full depth 3, 2 children", "best/worst", grown(words(2), 3, 2, 7)),
        Shape("wide depth 3, 5 children", "best/worst", spine(words(3), 3, (5, 5))),
        Shape("wide depth 3, 5 children, all pairs", "all pairs", spine(words(3), 3, (5, 5), every=True)),
        Shape("flat, short prompts", "flat", flat(words(5), 12, (40, 100), (60, 180))),
        Shape("flat, long prompts", "long", flat(words(6), 8, (400, 700), (50, 150))),
    ]


def training_data_of(pairs: list[Pair]) -> TrainingData:
    parts = [(np.array(before, np.int32), np.array(step, np.int32)) for before, *two in pairs for step in two]
    begin = np.array([len(before) for before, *two in pairs for _ in two])
    imitation = np.tile([1.0, 0.0], len(pairs))  # with weight 0 in the loss, as TRL has no NLL
    data = sequences(parts, begin, begin, imitation, 2)
    zeros = {"smoothing": np.zeros(len(pairs)), "margin": np.zeros(len(pairs))}
    return TrainingData(data, np.ones(len(pairs)), zeros, {"start": np.zeros(len(parts))}, "", "pairs")


def task_of(pairs: list[Pair], packing: bool, **data: Any) -> PolicyTrainingTask:
    """The work of an epoch. data: settings of `training.data`."""
    objective = {"beta": 0.1, "nll_weight": 0, "preference_weight": 1}
    settings = TrainingSettings(objective=objective, data={"packing": packing, **data})
    return PolicyTrainingTask(training_data_of(pairs), settings, torch.device("cpu"))


def epoch(model: Any, task: PolicyTrainingTask) -> None:
    """Reference forward, policy forward and backward of all pairs; the gradient is left in the model."""
    model.zero_grad()
    everything = np.arange(task.rows)
    passes = task.passes(everything, task.settings.data.max_batch_tokens)
    weights = next(model.parameters())
    reference = torch.zeros(task.sequences, dtype=weights.dtype)
    with torch.no_grad():
        for rows in passes:
            which, values, _ = task.reference(model, rows=rows)
            reference[which] = values
    for rows in passes:
        torch.autograd.backward(task.micro_batch_loss(model, rows=rows, update=everything, reference=reference).loss)


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([one.grad.flatten() for one in model.parameters()])


def clock(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


class Peer:
    """TRL in a process of its own."""

    def __init__(self, python: str, model: Path) -> None:
        command = [python, "-m", "benchmarks.training_peer", str(model)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self, pairs: list[Pair], batch: int, repeats: int, *, want_gradient: bool = False) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        command = {"pairs": pairs, "batch": batch, "repeats": repeats, "gradient": want_gradient}
        print(json.dumps(command), file=self.process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def best_batch(peer: Peer, pairs: list[Pair]) -> int:
    """Pairs per forward pass with which TRL is fastest."""
    tried = {batch: peer(pairs, batch, 1)["seconds"][0] for batch in BATCHES}
    return min(tried, key=lambda batch: tried[batch])


def compare(model: Any, shape: Shape, peer: Peer, batch: int, repeats: int) -> dict[str, Any]:
    """One line of the table: the three sides in turn, each side's median."""
    packed, naive = task_of(shape.pairs, True), task_of(shape.pairs, False)
    epoch(model, packed)
    ours = gradient(model)
    seconds: dict[str, list[float]] = {"packed": [], "naive": [], "trl": []}
    for _ in range(repeats):
        # It is the shorter, so it gets more looks.
        seconds["packed"] += [clock(lambda: epoch(model, packed)) for _ in range(2)]
        seconds["naive"] += [clock(lambda: epoch(model, naive))]
        whole = peer(shape.pairs, batch, 1, want_gradient=True)
        seconds["trl"] += whole["seconds"]
    theirs = torch.load(whole["gradient"])
    figures = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "shape": shape.name,
        "kind": shape.kind,
        "pairs": len(shape.pairs),
        "unique": shape.unique_tokens,
        "naive_tokens": shape.naive_tokens,
        "trl_batch": batch,
        "difference_to_trl": float((ours - theirs).norm() / theirs.norm()),
        "seconds": figures,
        "spread": {name: (max(values) - min(values)) / figures[name] for name, values in seconds.items()},
        "vs_trl": figures["trl"] / figures["packed"],
        "vs_naive": figures["naive"] / figures["packed"],
    }


def exactness(vocabulary: int = 512) -> dict[str, float]:
    """Relative error of the packed gradient against one unpadded sequence per step, with norms in the model's dtype."""

    def wide(self: Any, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + self.variance_epsilon)

    pairs = grown(Words(vocabulary, 8), 3, 2, 7)
    found = {}
    before, LlamaRMSNorm.forward = LlamaRMSNorm.forward, wide
    try:
        for name, dtype in (("fp64", torch.float64), ("fp32", torch.float32)):
            model = small_llama(vocabulary, layers=2).to(dtype)
            epoch(model, task_of(pairs, True))
            packed = gradient(model)
            epoch(model, task_of(pairs, False, max_batch_tokens=1))  # a pair per pass, padded at the right
            unpadded = gradient(model)
            found[name] = float((packed - unpadded).norm() / unpadded.norm())
    finally:
        LlamaRMSNorm.forward = before
    return found


def scaling(model: Any, vocabulary: int, repeats: int) -> list[dict[str, float]]:
    """Milliseconds per unique token in packs of growing size, of trees alike."""
    found = []
    for trees in (1, 2, 4, 7):
        pairs = [pair for seed in range(trees) for pair in grown(Words(vocabulary, 20 + seed), 3, 2, 7)]
        task = task_of(pairs, True, max_batch_tokens=10**9)
        tokens = len(make_trie([task.training_data.sequences.of(i) for i in range(task.sequences)]))
        epoch(model, task)
        seconds = statistics.median(clock(lambda task=task: epoch(model, task)) for _ in range(repeats))  # type: ignore[misc]
        found.append({"tokens": tokens, "ms_per_token": 1e3 * seconds / tokens})
    return found


def matmul_rate(size: int = 1536) -> float:
    """FLOP/s of a float32 matrix product on this thread, best of five."""
    a, b = torch.randn(2, size, size)
    torch.mm(a, b)
    return 2 * size**3 / min(clock(lambda: torch.mm(a, b)) for _ in range(5))


def needed_flops(model: Any, pairs: list[Pair]) -> float:
    """Of one epoch over the unique tokens: reference and policy forward, and twice the forward for the backward.

    Linear layers for every token, attention over visible keys only, the head at unique scored positions only.
    """
    trie = make_trie([np.array(before + step, np.int32) for before, *two in pairs for step in two])
    scored: set[int] = set()
    for path, length in zip(trie.paths, [len(step) for _, *two in pairs for step in two], strict=True):
        scored |= set(path[-length:].tolist())
    layers = [one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and "lm_head" not in name]
    config = model.config
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    visible = float((trie.depths + 1).sum())
    linear = 2.0 * len(trie) * sum(one.weight.numel() for one in layers)
    attention = 4.0 * width * config.num_hidden_layers * visible
    head = 2.0 * len(scored) * config.vocab_size * config.hidden_size
    return 4 * (linear + attention + head)


GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "tree attention, own operations": ("_Tiled", "_TiledBackward"),
    "gather and scatter": (
        "aten::index_select",
        "aten::index_add",
        "aten::index_add_",
        "aten::index",
        "aten::embedding",
        "aten::embedding_dense_backward",
        "aten::_index_put_impl_",
        "aten::gather",
        "aten::scatter_add_",
    ),
    "softmax": ("aten::_softmax", "aten::_log_softmax", "aten::_log_softmax_backward_data", "aten::logsumexp"),
    "copies, sums of gradients": ("aten::copy_", "aten::add_", "aten::cat", "aten::zero_", "aten::fill_"),
}


def where_time_goes(model: Any, pairs: list[Pair]) -> dict[str, float]:
    """Shares of an epoch's CPU time by kind of operation; the rest is element by element."""
    task = task_of(pairs, True)
    epoch(model, task)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        epoch(model, task)
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    total = sum(spent.values())
    shares = {name: sum(spent.get(key, 0) for key in keys) / total for name, keys in GROUPS.items()}
    return shares | {"element by element (norms, SiLU, rotary, residuals), overhead": 1 - sum(shares.values())}


def peak(work: Callable[[], object]) -> float:
    """MiB above what is resident now, while it runs."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed would hide what this work takes
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    work()
    return (resident("VmHWM") - before) / 1024


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def packing_start(scratch: Path) -> float:
    """CPU seconds that packing adds to 4 updates of a tiny policy, with as many threads as the machine has cores."""
    policy = tiny_policy(scratch / "tiny", max_position_embeddings=1024)
    words = Words(VOCABULARY, 0)
    rows = [(before, [], *two) for _ in range(8) for before, *two in grown(words, 3, 3, 16)]
    table = pairs_of(rows, digest_of(policy))
    torch.set_num_threads(os.cpu_count() or 1)

    def seconds(packing: bool) -> float:
        data = {"packing": packing, "batch_size": len(rows) // 4, "max_updates": 4}
        settings = TrainingSettings.model_validate({"data": data, "trackers": ()})
        return clock(lambda: train(policy, table, scratch / f"out-{packing}", settings))

    seconds(False)  # the libraries' own start
    found = seconds(True) - seconds(False)
    torch.set_num_threads(1)
    return found


def small_llama(vocabulary: int, *, layers: int = 4) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def save_small(folder: Path, vocabulary: int) -> Path:
    small_llama(vocabulary).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w1", pad_token="w2")
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def geometric(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def limits(model: Any, pairs: list[Pair]) -> dict[str, Any]:
    """FLOPs needed by time taken, as a share of the rate of matrix products measured at once; and where time goes."""
    task = task_of(pairs, True)
    epoch(model, task)
    seconds = statistics.median(clock(lambda: epoch(model, task)) for _ in range(3))
    rate, flops = matmul_rate(), needed_flops(model, pairs)
    return {"rate": rate, "share": flops / seconds / rate, "shares": where_time_goes(model, pairs)}


def memory(model: Any, peer: Peer, pairs: list[Pair]) -> dict[str, Any]:
    """Peaks above the loaded models, in MiB; TRL's by pairs per forward pass."""
    return {
        "packed": peak(lambda: epoch(model, task_of(pairs, True))),
        "naive": peak(lambda: epoch(model, task_of(pairs, False))),
        "trl": {size: peer(pairs, size, 1)["peak"] for size in (1, 4)},
    }


def run(python: str, real_model: Path | None, repeats: int) -> Iterator[dict[str, Any]]:
    """What has been found so far, after each stage."""
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = 8192
        folder = save_small(Path(scratch) / "small", vocabulary)
        model, peer = load(folder), Peer(python, folder)
        every, lines = shapes(vocabulary), []
        batch = best_batch(peer, every[0].pairs)
        for shape in every:
            lines.append(compare(model, shape, peer, batch, repeats))
            show(lines[-1])
        errors = exactness()
        growth = scaling(model, vocabulary, max(3, repeats))
        found = {
            "packing_start_cpu_s": packing_start(Path(scratch)),
            "grad_rel_error_fp64": errors["fp64"],
            "grad_rel_error_fp32": errors["fp32"],
            "time_per_token_spread": max(x["ms_per_token"] for x in growth) / min(x["ms_per_token"] for x in growth)
            - 1,
            "scaling": growth,
            "limit": {"small Llama": limits(model, every[1].pairs)},
            "peak_memory_mib": memory(model, peer, every[1].pairs),
        }
        peer.close()
        yield speedups(lines) | found
        if real_model is not None:
            model, peer = load(real_model), Peer(python, real_model)
            pairs = spine(Words(49000, 4), 5, (2, 4), prompt=60)
            real = Shape("SmolLM2-135M, depth 5, 2–4 children", "best/worst", pairs)
            lines.append(compare(model, real, peer, batch, repeats))
            show(lines[-1])
            found["limit"]["SmolLM2-135M"] = limits(model, pairs)
            peer.close()
            yield speedups(lines) | found


def speedups(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over the shapes; of the flat data sets, each by itself."""

    def mean(name: str, *kinds: str) -> float:
        return geometric([line[name] for line in lines if line["kind"] in kinds])

    return {
        "speedup_vs_trl_best_worst": mean("vs_trl", "best/worst"),
        "speedup_vs_trl_all_pairs": mean("vs_trl", "all pairs"),
        "speedup_vs_naive": mean("vs_naive", "best/worst", "all pairs"),
        "flat_speedup_vs_trl": mean("vs_trl", "flat"),
        "flat_long_prompts_speedup_vs_trl": mean("vs_trl", "long"),
        "lines": lines,
    }


def show(line: dict[str, Any]) -> None:
    print(row(line), f"| same gradient to {line['difference_to_trl']:.1e}", flush=True)


def row(line: dict[str, Any]) -> str:
    tokens = f"{line['unique']:,} / {line['naive_tokens']:,}"
    seconds = " / ".join(f"{line['seconds'][side]:.2f}" for side in ("packed", "naive", "trl"))
    ratios = f"{line['vs_naive']:.1f} × | {line['vs_trl']:.1f} ×"
    return f"| {line['shape']} | {line['pairs']} | {tokens} | {seconds} | {ratios} |"


def report(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    peaks = found["peak_memory_mib"]
    lines = [
        "| tree | pairs | tokens unique / naive | seconds packed / unpacked / TRL | against unpacked | against TRL |",
        "|---|---|---|---|---|---|",
        *map(row, found["lines"]),
        "",
        f"Geometric means: best/worst pairs {found['speedup_vs_trl_best_worst']:.1f} × TRL, all pairs "
        f"{found['speedup_vs_trl_all_pairs']:.1f} × TRL; {found['speedup_vs_naive']:.1f} × our own unpacked path.",
        "",
        f"Gradient against one sequence at a time: relative error {found['grad_rel_error_fp64']:.1e} in float64, "
        f"{found['grad_rel_error_fp32']:.1e} in float32; against TRL's own gradient, float32, at most "
        f"{max(line['difference_to_trl'] for line in found['lines']):.1e}.",
        "",
        "Milliseconds per unique token by size of the pack: "
        + ", ".join(f"{line['ms_per_token']:.3f} at {line['tokens']:,}" for line in found["scaling"])
        + f" (spread {found['time_per_token_spread']:.0%}).",
        "",
        f"CPU seconds that packing adds to a tiny policy's training of 4 updates: {found['packing_start_cpu_s']:.1f}.",
        "",
        f"Peak memory above the loaded models, MCTS tree, MiB: packed {peaks['packed']:.0f}, unpacked "
        f"{peaks['naive']:.0f}, TRL "
        + ", ".join(f"{v:.0f} at {size} pairs a pass" for size, v in peaks["trl"].items()),
    ]
    for name, limit in found["limit"].items():
        lines += [
            "",
            f"{name}: the FLOPs that the unique tokens need, by the time taken, are {limit['share']:.0%} of what "
            f"float32 matrix products reach here ({limit['rate'] / 1e9:.0f} GFLOP/s). Where the time goes:",
            "",
            *(f"- {kind}: {share:.0%}" for kind, share in limit["shares"].items()),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--peer", default=sys.executable, help="interpreter that has TRL (default: this one)")
    parser.add_argument("--real-model", type=Path, help="SmolLM2-135M as `python -m tests.real_model` makes it")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = None
    for found in run(given.peer, given.real_model, given.repeats):
        if given.json:
            given.json.write_text(json.dumps(found, indent=2) + "\n")
        if given.report:
            given.report.write_text(report(found) + "\n")
    assert found is not None
    print(report(found))


if __name__ == "__main__":
    main()

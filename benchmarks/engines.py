"""Engines side by side at the same work: greedy continuations of the same passages, CPU seconds, one run, one table.

    python -m benchmarks.engines MODEL [--dtype float32] [--batch 1 8] [--threads 1] [--limit 120] [--json FILE]

Rows: `generate` of transformers on a left-padded batch; its continuous batching (`generate_batch`); this project's
transformers engine; its vLLM engine, where vLLM is installed. Every row does the same: all passages of a batch are new
to it; once one token is asked of each (that is the reading), once `tokens` (what it costs more is the decoding).
"Identical" compares with `generate` one passage at a time. Load and warm-up are not counted; the fastest of
`--repeats` counts. Each row is a process of its own; one that fails, or takes longer than `--limit` seconds, says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ceiling import passages
from benchmarks.driving import complete
from mcts_dpo.engines import EngineSettings, Request, load_engine
from mcts_dpo.engines.base import Engine
from mcts_dpo.models.loading import load_model, load_tokenizer

Prompts = Sequence[tuple[int, ...]]
Row = dict[str, dict[str, float]] | str  # by batch size; or why there is none
Continue = Callable[[Prompts, int], list[list[int]]]  # (prompts, tokens) → that many tokens of each, or fewer


def plain(model: Any) -> Continue:
    """`generate` on one left-padded batch."""

    def run(prompts: Prompts, tokens: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        padded = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = model.generate(
                input_ids=padded, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0
            )
        return [row[longest:].tolist() for row in out]

    return run


def continuous(model: Any) -> Continue:
    """transformers' own continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    # By itself it takes all of the machine's memory for keys and values, and is killed for it.
    bounded = ContinuousBatchingConfig(page_size=32, num_blocks=256, max_batch_tokens=1024)

    def run(prompts: Prompts, tokens: int) -> list[list[int]]:
        ends = model.generation_config.eos_token_id
        config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=ends, pad_token_id=0)
        answers = model.generate_batch(
            inputs=[list(p) for p in prompts],
            generation_config=config,
            continuous_batching_config=bounded,
            progress_bar=False,
        )
        # Its requests are named req_0, req_1, …, and come back in any order.
        ordered = sorted(answers.items(), key=lambda item: int(str(item[0]).rpartition("_")[2]))
        found = [list(answer.generated_tokens) for _, answer in ordered]
        if len(found) != len(prompts):
            raise RuntimeError(f"{len(found)} answers to {len(prompts)} requests")
        return found

    return run


def ours(engine: Engine) -> Continue:
    """An engine of this project, its caches emptied first."""

    def run(prompts: Prompts, tokens: int) -> list[list[int]]:
        engine.reset()
        requests = [Request(i, prompt, max_tokens=tokens, temperature=0.0) for i, prompt in enumerate(prompts)]
        completions = complete(engine, requests)
        failed = next((completion.error for completion in completions if completion.error), None)
        if failed:
            raise RuntimeError(failed)
        return [list(completion.samples[0].tokens) for completion in completions]

    return run


def seconds(run: Continue, prompts: Prompts, tokens: int, repeats: int) -> tuple[float, list[list[int]]]:
    """The fastest of `repeats`, in CPU seconds of this process, and what came out."""
    best, found = float("inf"), []
    for _ in range(repeats):
        start = time.process_time()
        found = run(prompts, tokens)
        best = min(best, time.process_time() - start)
    return best, found


def measure_row(run: Continue, prompts: Prompts, truth: list[list[int]], tokens: int, repeats: int) -> dict[str, float]:
    """One engine at one batch size: tokens per CPU second of reading and of decoding, share of identical outputs."""
    run(prompts[:1], 2)
    reading, _ = seconds(run, prompts, 1, repeats)
    both, found = seconds(run, prompts, tokens, repeats)
    same = sum(one[: len(other)] == other for one, other in zip(found, truth, strict=True))
    decoded = sum(len(one) for one in truth) - len(truth)
    return {
        "prefill": sum(map(len, prompts)) / reading,
        "decode": decoded / (both - reading),
        "identical": same / len(truth),
    }


def maker(name: str, options: argparse.Namespace) -> Continue:
    """The way of continuing passages that a row of the table is about."""
    if name == "transformers generate":
        return plain(load_model(options.model, options.dtype))
    if name == "transformers generate_batch":
        return continuous(load_model(options.model, options.dtype))
    settings = EngineSettings(slots=max(options.batch), dtype=options.dtype, threads=options.threads)
    if name == "engine transformers":
        return ours(load_engine(options.model, settings))
    return ours(load_engine(options.model, settings, kind="vllm", memory=1.0))


ROWS = ("transformers generate", "transformers generate_batch", "engine transformers", "engine vllm")


def row(name: str, options: argparse.Namespace) -> Row:
    """Measure one row in this process."""
    torch.set_num_threads(options.threads)
    prompts = passages(load_tokenizer(options.model), max(options.batch), options.prefix)
    one_by_one = plain(load_model(options.model, options.dtype))
    truth = [one_by_one([prompt], options.tokens)[0] for prompt in prompts]
    run = maker(name, options)
    return {
        str(size): measure_row(run, prompts[:size], truth[:size], options.tokens, options.repeats)
        for size in options.batch
    }


def row_of_a_child(name: str, limit: float, arguments: Sequence[str]) -> Row:
    """The same in a process of its own, killed after `limit` seconds; a line that says why where there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "row.json"
        command = [sys.executable, "-m", "benchmarks.engines", *arguments, "--row", name, "--json", str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return f"no result within {limit:g} s"
        if done.returncode:
            return "does not run here: " + (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        found: dict[str, dict[str, float]] = json.loads(target.read_text(encoding="utf-8"))
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prefix", type=int, default=96, help="tokens of each passage")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to continue it by")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that a row may take")
    parser.add_argument("--row", choices=ROWS, help="measure this one only, in this process")
    parser.add_argument("--json", type=Path)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.row:
        found: Any = row(options.row, options)
    else:
        found = {name: row_of_a_child(name, options.limit, given) for name in ROWS}
        print(table(found, options.batch))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def table(rows: dict[str, Row], batch: Sequence[int]) -> str:
    """Markdown: tokens per CPU second, decoding at each batch size, reading at the largest, identical outputs."""
    head = ["", *(f"decode, {size} at a time" for size in batch), "prefill", "identical to generate"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        if isinstance(row, str):
            cells = [row] + [""] * (len(head) - 2)
        else:
            cells = [f"{row[str(size)]['decode']:.0f}" for size in batch]
            cells += [f"{row[str(batch[-1])]['prefill']:.0f}", f"{row[str(batch[-1])]['identical']:.0%}"]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

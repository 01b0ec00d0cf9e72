"""The search on a real model and engine: how near to the engine's own ceiling, and where the rest goes.

    python -m benchmarks.search_engine --model DIR --problems FILE --json FILE [--engine vllm]

Trees of steps (3 children of at most 64 tokens, each asked about once) over as many problems as asked for, by the
event-driven schedule. The ceiling is the engine's own: decode steps of a full batch and uncached prefix tokens per
second, measured in the same process just before and just after (`benchmarks.ceiling`), at the context lengths of the
search. CPU seconds; a search of the same shape over a few other problems is the warm-up.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ceiling import Ceiling, measure
from benchmarks.search_peers import CHILDREN, DEPTH, PROMPT, STEP_TOKENS, TEMPERATURE
from mcts_dpo.common.files import write_json
from mcts_dpo.data import load_problems
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Usage
from mcts_dpo.models.prompts import self_evaluation
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.search.runner_clock import RunnerClock
from mcts_dpo.search.tree import Forest

TOKENS = 48
"""Decoded by each sequence of a measurement of the ceiling."""

SETTINGS = SearchSettings(
    expand="step",
    schedule="asynchronous",
    simulations=4,
    children=CHILDREN,
    temperature=TEMPERATURE,
    max_step_tokens=STEP_TOKENS,
    max_tokens=512,
    max_depth=DEPTH,
    rewards=(OutcomeSettings(), SelfEvaluationSettings(weight=1.0, at="all")),
)


def run(model: Path, problems: Path, count: int, slots: int, engine_name: str) -> dict[str, Any]:
    """Search `count` problems; figures of time and tokens."""
    items = load_problems(problems, limit=count + 8)
    engine = load_engine(model, kind=engine_name, slots=slots, threads=1)
    warm = search_problems(
        items[count:], engine, prompt=PROMPT, settings=SETTINGS.model_copy(update={"simulations": 2})
    )
    suffix = len(self_evaluation(engine.tokenizer, PROMPT)[0])
    shape = {"prefix": max(32, mean_context(warm) - TOKENS // 2), "tokens": TOKENS, "question": suffix}
    sizes = (1, max(1, slots // 4), slots)
    before = measure(engine, batch_sizes=sizes, repeats=2, **shape)
    engine.reset()
    used, clock = engine.usage.copy(), RunnerClock()
    forest = search_problems(items[:count], engine, prompt=PROMPT, settings=SETTINGS, clock=clock)
    now = engine.usage
    usage = Usage(
        now.prompt_tokens - used.prompt_tokens,
        now.prefill_tokens - used.prefill_tokens,
        now.sampled_tokens - used.sampled_tokens,
    )
    after = measure(engine, batch_sizes=sizes, repeats=2, **shape)
    asked = suffix * int(np.isfinite(forest.scores["self_evaluation"]).sum())
    # The mean of the two: the machine may have been slower at one end than at the other.
    predicted = float(np.mean([ceiling.predict(usage, slots, asked) for ceiling in (before, after)]))
    seconds = clock.engine + clock.other
    expansions = sum(tree.simulations for tree in forest.trees)
    return {
        "name": f"mcts-dpo, {engine_name}",
        "engine": engine_name,
        "slots": slots,
        "problems": count,
        "seconds": seconds,
        "expansions": expansions,
        "tokens": usage.sampled_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "prefill_tokens": usage.prefill_tokens,
        "question_tokens": asked,
        "mean_context": {"measured": before.context, "searched": mean_context(forest)},
        "ended": {status: sum(t.status == status for t in forest.trees) for status in {t.status for t in forest.trees}},
        "predicted_seconds": predicted,
        "ceiling_share": predicted / seconds,
        "bookkeeping_share": clock.bookkeeping_share,
        "ceiling": {"before": rates(before), "after": rates(after)},
    }


def mean_context(forest: Forest) -> int:
    """Tokens before a sampled one, on average over the tokens of all nodes (merged samples counted once)."""
    before, count = 0.0, 0
    for node in range(len(forest)):
        own = len(forest.step_tokens(node))
        if forest.parent[node] >= 0 and own:
            path = len(forest.trees[int(forest.tree[node])].prompt_tokens) + len(forest.solution_tokens(node)) - own
            before += own * (path + (own - 1) / 2)
            count += own
    return round(before / max(1, count))


def rates(ceiling: Ceiling) -> dict[str, Any]:
    decode = {str(size): ceiling.decode(size) for size in ceiling.batch_sizes}
    return {
        "decode_tokens_per_second": decode,
        "prefill_tokens_per_second": ceiling.prefill,
        "behind_tokens_per_second": ceiling.behind,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--count", type=int, default=48, help="problems searched")
    parser.add_argument("--slots", type=int, default=32, help="sequences that the engine runs together")
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    found = run(arguments.model, arguments.problems, arguments.count, arguments.slots, arguments.engine)
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()

"""How fast the search's own Python is: trees of steps on an engine that answers at once.

    python -m benchmarks.search_driver --json FILE

The engine has its completions ready: it gives sentences of the built-in world, tokenised beforehand, and the same
probability of yes to every question. Each expansion draws CHILDREN steps, and every new node is asked about. What is
left is the driver: requests, decoding, merging, verification, rewards, kernels. CPU seconds of the process; a search of
the same shape over a few other problems is the warm-up, so that compilation is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from mcts_dpo.common.files import write_json
from mcts_dpo.engines.base import Completion, Occupancy, Request, Sample, Usage
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import make_problems

CHILDREN, DEPTH, SIMULATIONS = 4, 5, 8
PROMPT = PromptSettings(style="plain", template="Question: {question}\nAnswer:", stop=("\n\n",))
SETTINGS = SearchSettings(
    expand="step",
    schedule="asynchronous",
    simulations=SIMULATIONS,
    children=CHILDREN,
    max_step_tokens=64,
    max_tokens=512,
    max_depth=DEPTH,
    rewards=(OutcomeSettings(), SelfEvaluationSettings(weight=1.0, at="all")),
)
SENTENCES = 3
"""Sentences in one step, which is then about 29 tokens long, as SmolLM2's steps on GSM8K are."""


class InstantEngine:
    """An engine whose completions are ready: `steps` that continue a solution, and `ends` where it must end.

    Which of them a sample is depends on its request's seed alone."""

    context = 2048
    slots = 32

    def __init__(self, seed: int = 0) -> None:
        self.tokenizer = toy_tokenizer()
        self.usage = Usage()
        self._ready: list[Completion] = []
        chance = Random(seed)
        said = [line for problem in make_problems(64, seed) for line in str(problem.solution).split("\n")[:-1]]
        self._steps = [self._sample(" ".join(chance.sample(said, SENTENCES)) + "\n", "stop") for _ in range(256)]
        self._ends = [self._sample(f" The answer is {number}.", "end") for number in range(16)]

    def _sample(self, text: str, finish: Any) -> Sample:
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += [self.tokenizer.eos_token_id] if finish == "end" else []
        return Sample(tuple(tokens), text, (-0.5,) * len(tokens), finish)

    def submit(self, request: Request) -> None:
        if request.choices is not None:
            self._ready.append(Completion(request.id, probabilities=(0.7, 0.3)))
            return
        pool = self._steps if "\n" in request.stop else self._ends
        samples = tuple(pool[(request.seed + 7 * turn) % len(pool)] for turn in range(request.n))
        self.usage.sampled_tokens += sum(len(sample.tokens) for sample in samples)
        self._ready.append(Completion(request.id, samples))

    def poll(self, patience: float | None = None) -> list[Completion]:
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, ids: Iterable[int]) -> None:
        gone = set(ids)
        self._ready = [completion for completion in self._ready if completion.id not in gone]

    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._ready))

    def reset(self) -> None: ...

    def reload(self, model: Path) -> None: ...

    def close(self) -> None: ...


def run(count: int) -> dict[str, Any]:
    """Search `count` problems; expansions and sampled tokens a CPU second, and the shape of what was searched."""
    problems = make_problems(count + 8, 1)
    engine = InstantEngine()
    search_problems(problems[count:], engine, prompt=PROMPT, settings=SETTINGS)
    before, start = engine.usage.copy(), time.process_time()
    forest = search_problems(problems[:count], engine, prompt=PROMPT, settings=SETTINGS)
    seconds = time.process_time() - start
    expansions = sum(tree.simulations for tree in forest.trees)
    tokens = engine.usage.sampled_tokens - before.sampled_tokens
    judged = int(np.isfinite(forest.scores["self_evaluation"]).sum())
    assert judged == len(forest) - count, "every new node is asked about"
    return {
        "problems": count,
        "seconds": seconds,
        "expansions": expansions,
        "tokens": tokens,
        "nodes": len(forest),
        "tokens_per_step": float(forest.length[forest.depth > 0].mean()),
        "driver_expansions_per_s": expansions / seconds,
        "driver_tokens_per_s": tokens / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256, help="problems searched")
    arguments = parser.parse_args()
    write_json(arguments.json, run(arguments.count))


if __name__ == "__main__":
    main()
